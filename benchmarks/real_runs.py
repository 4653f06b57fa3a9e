"""The real runs of benchmarks/accuracy.py: which sets are made, and how each is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS, RUNS = ROOT / "artifacts", ROOT / "runs"

Step = tuple[str, Path]
"""A command without ``dsdistill``, and the file that shows it is done."""


@dataclass(frozen=True)
class Experts:
    """Networks that cells match with."""

    name: str
    options: str

    @property
    def file(self) -> Path:
        """Where they are kept."""
        return RUNS / f"{self.name}.h5"

    @property
    def step(self) -> Step:
        """Return the command that trains them."""
        return f"experts -o {self.file} --resume {self.options}", self.file


@dataclass(frozen=True)
class Cell:
    """One distillation and the evaluations of what it made."""

    name: str
    distil: str
    evaluations: dict[str, str]
    """Options of each, by a name for it."""
    keep: bool = False
    """Whether the set itself is copied to artifacts/."""
    experts: Experts | None = None

    @property
    def file(self) -> Path:
        """Where the set is made; what is in artifacts/ never counts as done."""
        return RUNS / f"{self.name}.h5"

    def result(self, evaluation: str) -> Path:
        """Return where an evaluation writes what it found."""
        return RUNS / f"{self.name}.{evaluation}.json"

    def steps(self) -> list[Step]:
        """Return the commands in their order; experts, the same for several cells, come first."""
        run = f"{RUNS / self.name}.run"
        experts = f" --experts {self.experts.file}" if self.experts else ""
        made = [self.experts.step] if self.experts else []
        made.append((f"distill -o {self.file} --run-dir {run} --resume {self.distil}{experts}", self.file))
        for name, options in self.evaluations.items():
            made.append(
                (f"evaluate {self.file} --json {self.result(name)} --resume {options}", self.result(name))
            )
        return made


def _fashion(method: str, ipc: int, iterations: int, seed: int = 0, more: str = "") -> str:
    told = f"--dataset fashion-mnist --method {method} --ipc {ipc} --iterations {iterations} --seed {seed}"
    return f"{told} {more}".rstrip()


def _judged(protocol: str, repeats: int = 3, seed: int = 0, random: bool = True, more: str = "") -> str:
    """Return options of an evaluation; random selection needs judging once for each protocol and IPC."""
    baselines = "" if random else " --baselines ''"
    return f"--protocol {protocol} --repeats {repeats}{baselines} {more}".rstrip() + f" --seed {seed}"


def _dm() -> list[Cell]:
    return [
        Cell(f"fashion-mnist-dm-ipc{ipc}", _fashion("dm", ipc, iterations), {"dm": _judged("dm")}, keep=True)
        for ipc, iterations in ((10, 2000), (1, 1000))  # half an hour and a quarter on two cores
    ]


def _gradient(ipc: int, iterations: dict[str, int]) -> list[Cell]:
    """Half an hour each on two cores, or a little less; the papers take many times as long."""
    return [
        Cell(
            f"fashion-mnist-{method}-ipc{ipc}",
            _fashion(method, ipc, steps),
            {name: _judged(name, random=method == "dsa") for name in ("dsa", "idc")},
            keep=True,
        )
        for method, steps in iterations.items()
    ]


POOL = Experts("experts-ncfm", "--dataset fashion-mnist --recipe ncfm --count 3 --epochs 3 --seed 0")


def _distribution(ipc: int, iterations: dict[str, int]) -> list[Cell]:
    """Half an hour each on one thread (``--jobs 2``); with its adversary NCFM takes longer for as many steps.

    Under ``dm`` all are judged by its network, DataDAM as well, whose own normalises by batches; IDM's own
    protocol has the settings of ``dm``.
    """
    convnet = "--networks convnet"
    alone = _judged("dm", random=False, more=convnet)
    judged = {
        "datadam": {"datadam": _judged("datadam"), "dm": _judged("dm", more=convnet)},
        "idm": {"idm": _judged("idm")},
        "ncfm": {"ncfm": _judged("ncfm"), "dm": alone},
        "ncfm-minmax": {"dm": alone},
    }
    experts = {"ncfm": POOL, "ncfm-minmax": POOL}
    return [
        Cell(
            f"fashion-mnist-{method}-ipc{ipc}",
            _fashion(method, ipc, steps),
            judged[method],
            keep=True,
            experts=experts.get(method),
        )
        for method, steps in iterations.items()
    ]


DIGITS = "--dataset digits --network convnet2-w32"
DIGITS_POOL = Experts("experts-digits", f"{DIGITS} --recipe ncfm --count 3 --epochs 20 --seed 0")


def _adversary() -> list[Cell]:
    """NCFM on digits without its adversary, and with one that reaches so far."""
    told = f"{DIGITS} --ipc 1 --iterations 400 --method"
    ways = {"none": "ncfm", "reach-2": "ncfm-minmax"}
    # The square root of the features' length, 128: every coordinate of a frequency may move by 1.
    ways["reach-11"] = "ncfm-minmax --set engine.discrepancy.sampler_reach=11.3"
    return [
        Cell(
            f"adversary-{way}-seed{seed}",
            f"{told} {method} --seed {seed}",
            {"dm": _judged("dm", seed=seed, random=way == "none", more="--epochs 300")},
            experts=DIGITS_POOL,
        )
        for seed in range(3)
        for way, method in ways.items()
    ]


NARROW = "convnet-w64"  # half the maps: five experts of 128 would take two hours
TRAJECTORIES = Experts(
    "experts-mtt", f"--dataset fashion-mnist --network {NARROW} --recipe mtt --count 5 --epochs 10 --seed 0"
)
IN_FP32 = Experts(
    "experts-mtt-fp32",
    f"--dataset fashion-mnist --network {NARROW} --recipe mtt --count 3 --epochs 5 --seed 0 "
    "--set compute.precision=fp32 --set compute.compile=true",
)


def _trajectory(ipc: int, iterations: dict[str, tuple[int, str]]) -> list[Cell]:
    """Up to half an hour each on one thread (``--jobs 2``); by method, iterations and further options.

    All follow MTT's experts: DATM and AST have experts of their own, whose training costs several times more.
    Under ``dm`` they are judged by the same network as the sets of other suites, and random images with DM's.
    """
    return [
        Cell(
            f"fashion-mnist-{method}-ipc{ipc}",
            _fashion(method, ipc, steps, more=f"--network {NARROW} {more}"),
            {  # each at a learning rate of its own, random selection as well
                method: _judged(method, more=f"--networks {NARROW}"),
                "dm": _judged("dm", random=False, more="--networks convnet"),
            },
            keep=True,
            experts=TRAJECTORIES,
        )
        for method, (steps, more) in iterations.items()
    ]


def _fyi(ipc: int, iterations: dict[str, int]) -> list[Cell]:
    """With and without mirror images, all else equal: FYI's augmentation and protocol for both."""
    cells = []
    for method, steps in iterations.items():
        for seed in range(3):
            for flip in ("true", "false"):
                random = method == "dm" and flip == "true"  # the same for all
                cells.append(
                    Cell(
                        f"fyi-{method}-ipc{ipc}-flip-{flip}-seed{seed}",
                        _fashion(f"fyi-{method}", ipc, steps, seed, f"--set synthetic.flip={flip}"),
                        {"fyi": _judged("fyi", repeats=2, seed=seed, random=random)},
                    )
                )
    return cells


def _precision(
    method: str,
    steps: int,
    name: str,
    ipc: int = 10,
    more: str = "",
    experts: Experts | None = None,
    also: tuple[str, ...] = (),
) -> list[Cell]:
    """Judged under the method's own protocol, and under others by the network of theirs."""
    cells = []
    for seed in range(3):
        for precision in ("bf16", "fp32"):
            options = f"--set compute.precision={precision} --set compute.compile=true {more}"
            distil = _fashion(method, ipc, steps, seed, options)
            evaluations = {method: _brief(method, seed)}
            evaluations |= {other: _brief(other, seed, more=" --networks convnet") for other in also}
            cells.append(Cell(f"{name}-{precision}-seed{seed}", distil, evaluations, experts=experts))
    return cells


def _evaluator() -> list[Cell]:
    evaluations = {
        f"{precision}-seed{seed}": _brief("dm", seed, repeats=1, more=f" --precision {precision}")
        for seed in range(3)
        for precision in ("bf16", "fp32")
    }
    (made, *_) = _precision("dm", 60, "precision")
    return [dataclasses.replace(made, evaluations=evaluations)]


def _brief(protocol: str, seed: int, repeats: int = 2, more: str = "") -> str:
    return _judged(protocol, repeats, seed, random=False, more=f"--epochs 300{more}")


_EARLY = "--set engine.start.most=8"  # of ten epochs; the recipes go on to later ones
_EARLIEST = "--set engine.start.most=2"  # as MTT at one image, where AST fails from later ones at once

SUITES: dict[str, Callable[[], list[Cell]]] = {
    "dm": _dm,
    "gradient-ipc1": lambda: _gradient(1, {"idc": 800, "dsa": 500}),
    "gradient-ipc10": lambda: _gradient(10, {"dsa": 170, "idc": 350}),
    "distribution-ipc1": lambda: _distribution(
        1, {"datadam": 2400, "ncfm": 180, "idm": 50, "ncfm-minmax": 180}
    ),
    "distribution-ipc10": lambda: _distribution(10, {"datadam": 2200, "ncfm": 180, "idm": 170}),
    "adversary": _adversary,
    "trajectory-ipc1": lambda: _trajectory(1, {"mtt": (540, ""), "datm": (340, ""), "ast": (900, _EARLIEST)}),
    "trajectory-ipc10": lambda: _trajectory(
        10,
        {
            "mtt": (120, _EARLY),
            "datm": (45, f"{_EARLY} --set engine.start.widen_from=4 --set engine.start.widen_until=25"),
            "ast": (105, _EARLY),
        },
    ),
    "fyi-ipc1": lambda: _fyi(1, {"dm": 300, "dsa": 100}),
    "fyi-ipc10": lambda: _fyi(10, {"dm": 300, "dsa": 20}),
    "gradient-precision": lambda: _precision("dsa", 20, "gradient"),
    "distribution-precision": lambda: [
        # Under dm too: DataDAM's own students, of ten images, spread too widely to tell.
        *_precision("datadam", 100, "datadam", 1, also=("dm",)),
        *_precision("idm", 15, "idm", 1, "--set engine.batch_real=256"),
        *_precision("ncfm", 15, "ncfm", 1, experts=POOL),
    ],
    "precision": lambda: _precision("dm", 60, "precision"),
    "evaluator": _evaluator,
}
"""By name; every one of them stops and goes on at will."""
