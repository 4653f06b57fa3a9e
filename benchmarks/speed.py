"""How much faster than the plain variant, measured side by side on this machine.

    python benchmarks/speed.py dm        a DM iteration: Fashion-MNIST, ConvNet-3, 256 real images a class
    python benchmarks/speed.py datadam   a DataDAM iteration, 64 real images a class
    python benchmarks/speed.py idm       an IDM iteration, 256 real images a class, 2 networks trained
    python benchmarks/speed.py ncfm      an NCFM iteration, 1024 real images a class, 4096 frequencies
    python benchmarks/speed.py kernel    a FRePo iteration: 1024 real images, 8192 features, a network trained
    python benchmarks/speed.py gradient  a DSA image update over all classes, likewise
    python benchmarks/speed.py inner     an epoch of DSA's network on the synthetic set
    python benchmarks/speed.py trajectory  an MTT iteration of --steps steps, all images in each
    python benchmarks/speed.py recovery  a step of all images of SRe2L: ResNet-18 of 16 maps, ten a batch
    python benchmarks/speed.py expert    a tenth of an expert's epoch: 24 batches of 256 real images
    python benchmarks/speed.py student   one epoch of student training on 100 images, as an evaluation does it
    python benchmarks/speed.py perclass  gradients of ten classes: a loop, vmap, or one pass taken apart

Every variant (see benchmarks/variants.py) runs in a process of its own, and they take turns. Medians and
paired ratios are printed and go to artifacts/speed-<what>.json; the name says IPC and steps where they are
not 10 and 20, and "amx" where the CPU has that.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import variants
from benchmarks.alternate import alternate, report
from benchmarks.common import speed_record, write_record

LEVELS = {"fp32, eager": ("fp32", False), "fp32, compiled": ("fp32", True), "bf16, compiled": ("bf16", True)}
UNITS = {
    "dm": "iteration",
    "datadam": "iteration",
    "idm": "iteration",
    "ncfm": "iteration",
    "kernel": "iteration",
    "gradient": "image update",
    "inner": "epoch",
    "trajectory": "iteration",
    "recovery": "step of all images",
    "expert": "tenth of an epoch",
    "student": "student epoch",
    "perclass": "gradient of ten classes",
}


def compared(what: str, ipc: int, steps: int = 20) -> dict[str, variants.Variant]:
    """Return the variants of a benchmark, the plain one first."""
    if what == "trajectory":
        levels: dict[str, tuple[str, bool, str]] = {"exact, eager": ("exact", False, "fp32")}
        levels["exact, compiled"] = ("exact", True, "fp32")
        levels["truncated, compiled"] = ("truncated", True, "fp32")
        levels["exact, compiled, steps in bf16"] = ("exact", True, "bf16")
        unrolled: dict[str, variants.Variant] = {
            "plain: unrolled, eager": functools.partial(variants.plain_trajectory, ipc, steps)
        }
        return unrolled | {
            f"ours, {name}": functools.partial(variants.ours_trajectory, ipc, steps, *level)
            for name, level in levels.items()
        }
    if what == "perclass":
        return {mode: functools.partial(variants.per_class, mode) for mode in ("loop", "vmap", "capture")}
    plain, ours = getattr(variants, f"plain_{what}"), getattr(variants, f"ours_{what}")
    by_name: dict[str, variants.Variant] = {"plain: eager fp32": functools.partial(plain, ipc)}
    by_name |= {f"ours, {name}": functools.partial(ours, ipc, *level) for name, level in LEVELS.items()}
    if what == "gradient":
        by_name["ours, all in bf16, compiled"] = functools.partial(ours, ipc, "bf16", True, "bf16")
    if what == "student":
        by_name["ours, bf16, compiled, 3 stacked"] = functools.partial(ours, ipc, "bf16", True, 3)
    return by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=UNITS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="of a student, for trajectory")
    args = parser.parse_args()
    chosen = compared(args.what, args.ipc, args.steps)
    load = os.getloadavg()[0]  # above about 0.5 something else was running
    seconds = alternate(chosen, args.rounds)
    if args.what == "student":  # ours trains two epochs a call, stacked those of three students
        work = {name: 2 * 3 if "stacked" in name else 2 if "ours" in name else 1 for name in chosen}
        seconds = {name: [value / work[name] for value in values] for name, values in seconds.items()}
    rows = report(seconds, next(iter(chosen)), UNITS[args.what])
    ipc = f"-ipc{args.ipc}" if args.ipc != 10 else ""
    steps = f"-steps{args.steps}" if args.steps != 20 else ""
    write_record(speed_record(f"{args.what}{ipc}{steps}"), rows, load_before=load)


if __name__ == "__main__":
    main()
