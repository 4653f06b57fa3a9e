"""How much faster than the plain way, measured side by side on this machine.

    python benchmarks/speed.py dm        a DM iteration: Fashion-MNIST, ConvNet-3 width 128, 256 real a class
    python benchmarks/speed.py student   one epoch of student training on 100 images, as an evaluation does it

Every way runs in a process of its own and they take turns; medians and paired ratios are printed and written
to artifacts/speed-<what>.json. The plain ways are those of tests/reference: eager, fp32, one class at a time,
the allocator as it comes.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the plain versions live beside the tests

from benchmarks.alternate import alternate, report  # noqa: E402
from dsdistill import assembly, config, runtime  # noqa: E402
from dsdistill.augment.dsa import Augmentation, Parameters  # noqa: E402
from dsdistill.data import catalog  # noqa: E402
from dsdistill.evaluation import students  # noqa: E402
from dsdistill.evaluation.cohorts import Execution, Single, Stacked  # noqa: E402
from dsdistill.evaluation.protocol import load_protocol  # noqa: E402
from dsdistill.networks import build  # noqa: E402
from dsdistill.seeding import generator  # noqa: E402
from tests.reference import student as reference  # noqa: E402
from tests.reference.dm import distribution_matching_loss  # noqa: E402

CPU = torch.device("cpu")


def plain_dm(ipc: int) -> Callable[[], Any]:
    """One DM iteration as the papers' code does it."""
    loop = _loop(ipc, "fp32", compile=False)
    sources, synthetic = loop.sources, loop.synthetic
    optimiser = torch.optim.SGD(synthetic.parameters(), lr=1.0, momentum=0.5)
    network, classes = sources.supply.network, range(10)
    images = sources.task.preprocess(sources.data.unit(slice(None)))  # the papers' code keeps all as floats
    members = [sources.data.indices_of(c) for c in classes]
    step = 0

    def iteration() -> None:
        nonlocal step
        sources.supply.draw(0, step)
        sources.iteration, step = step, step + 1
        rows = sources.siamese()
        real = [images[i[torch.randperm(len(i))[:256]]] for i in members]
        augment = [functools.partial(_shared, sources.augmentation, rows[c : c + 1]) for c in classes]
        optimiser.zero_grad()
        distribution_matching_loss(
            network.embed, real, list(synthetic.of(torch.arange(10))), augment
        ).backward()
        optimiser.step()

    return iteration


def _shared(augmentation: Augmentation, row: Parameters, images: torch.Tensor) -> torch.Tensor:
    return augmentation(images, row[torch.zeros(len(images)).long()])


def ours_dm(ipc: int, precision: str, compile: bool) -> Callable[[], Any]:
    """One DM iteration of the engine."""
    runtime.quiet_allocator()
    loop = iter(_loop(ipc, precision, compile))
    return lambda: next(loop)


def _loop(ipc: int, precision: str, compile: bool) -> Any:
    told = {
        "data": {"name": "fashion-mnist"},
        "ipc": ipc,
        "compute": {"precision": precision, "compile": compile},
    }
    cfg = config.resolve(told)
    task, real = catalog.load(cfg.data, "train")
    return assembly.build(cfg, task, real, CPU, print)


def plain_student(ipc: int) -> Callable[[], Any]:
    """One epoch of a student as the papers' code trains it."""
    task, images, labels, draw = _students(ipc)
    network = build("convnet3", task.channels, task.size, task.num_classes)
    epoch = 0

    def one_epoch() -> None:
        nonlocal epoch
        epoch += 1
        reference.train(
            network,
            images,
            labels,
            epochs=0,
            batch_size=256,
            lr=0.01,
            order=lambda _: torch.randperm(len(images)),
            augment=lambda x, _, batch: draw(x, epoch),
        )

    return one_epoch


def ours_student(ipc: int, precision: str, compile: bool, stacked: int = 0) -> Callable[[], Any]:
    """One epoch of the evaluator: of one student, or of several stacked."""
    runtime.quiet_allocator()
    task, images, labels, _ = _students(ipc)
    protocol = load_protocol("dm", epochs=1)
    execution = Execution(CPU, precision, compile, print)  # type: ignore[arg-type]
    networks = [build("convnet3", task.channels, task.size, task.num_classes) for _ in range(stacked or 1)]
    cohort = Stacked(networks, execution) if stacked else Single(networks[0], execution)
    augmentation = protocol.augmentation_for(task.mirror)
    sets, repeats = [(images, labels)] * len(networks), list(range(len(networks)))

    def two_epochs() -> None:  # epochs 0 and 1, as a protocol of one epoch has it
        students.fit(
            cohort, sets, repeats, protocol, augmentation, 0, None, execution, lambda done, total: None
        )

    return two_epochs


def _students(
    ipc: int,
) -> tuple[Any, torch.Tensor, torch.Tensor, Callable[[torch.Tensor, int], torch.Tensor]]:
    loop = _loop(ipc, "fp32", compile=False)
    task, synthetic = loop.sources.task, loop.synthetic
    augmentation = load_protocol("dm").augmentation_for(task.mirror)

    def draw(images: torch.Tensor, epoch: int) -> torch.Tensor:
        rows = augmentation.draw(len(images), task.size, generator(0, "augment", epoch), shared_operator=True)
        return augmentation(images, rows)

    return task, synthetic.images.detach(), synthetic.labels, draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["dm", "student"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ipc", type=int, default=10)
    args = parser.parse_args()
    ways = {
        "dm": {
            "plain: eager fp32, class by class": functools.partial(plain_dm, args.ipc),
            "ours, fp32, eager": functools.partial(ours_dm, args.ipc, "fp32", False),
            "ours, fp32, compiled": functools.partial(ours_dm, args.ipc, "fp32", True),
            "ours, bf16, compiled": functools.partial(ours_dm, args.ipc, "bf16", True),
        },
        "student": {
            "plain: eager fp32": functools.partial(plain_student, args.ipc),
            "ours, fp32, eager": functools.partial(ours_student, args.ipc, "fp32", False),
            "ours, fp32, compiled": functools.partial(ours_student, args.ipc, "fp32", True),
            "ours, bf16, compiled": functools.partial(ours_student, args.ipc, "bf16", True),
            "ours, bf16, compiled, 3 stacked": functools.partial(ours_student, args.ipc, "bf16", True, 3),
        },
    }[args.what]
    work = {name: 2 * 3 if "stacked" in name else 2 if "ours" in name else 1 for name in ways}
    load = os.getloadavg()[0]  # above about 0.5 something else was running
    seconds = alternate(ways, args.rounds)
    if args.what == "student":  # ours trains two epochs a call, stacked those of three students
        seconds = {name: [value / work[name] for value in values] for name, values in seconds.items()}
    rows = report(seconds, next(iter(ways)), {"dm": "iteration", "student": "student epoch"}[args.what])
    record = {
        "command": f"python benchmarks/speed.py {' '.join(sys.argv[1:])}",
        "date": datetime.date.today().isoformat(),
        "machine": runtime.machine(CPU),
        "load_before": load,
        "packages": runtime.packages(),
        "rows": rows,
    }
    (ROOT / "artifacts" / f"speed-{args.what}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
