"""Does bf16 harm experts? Three, trained from the same weights on the same batches in bf16 and in fp32.

    python benchmarks/experts.py    Fashion-MNIST, ConvNet-3, MTT's experts after each of five epochs

Every network is tested on the 10,000 test images in fp32. The experts in bf16 are trained as those of
benchmarks/suites/trajectory-ipc1.toml; both files stay in runs/. Written to artifacts/experts-precision.json
and .md.
"""

from __future__ import annotations

import datetime
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ARTIFACTS, ROOT, RUNS, spread
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.evaluation.accuracy import TestImages, accuracies
from dsdistill.evaluation.ensembles import SingleStudent
from dsdistill.evaluation.execution import CPU, Execution
from dsdistill.networks import build_network
from dsdistill.runtime import provenance
from dsdistill.storage.expert_file import ExpertFile

COMMAND = "python benchmarks/experts.py"
_COMMON = "--dataset fashion-mnist --network convnet-w64 --recipe mtt"
OPTIONS = {
    "bf16": f"{_COMMON} --count 5 --epochs 10 --seed 0",
    "fp32": f"{_COMMON} --count 3 --epochs 5 --seed 0 "
    "--set compute.precision=fp32 --set compute.compile=true",
}
"""Of the command ``dsdistill experts``, by precision."""
FILES = {"bf16": RUNS / "experts-mtt.h5", "fp32": RUNS / "experts-mtt-fp32.h5"}


def main() -> None:
    RUNS.mkdir(exist_ok=True)
    for precision in OPTIONS:
        train(precision)
    experts = {precision: ExpertFile.open(file) for precision, file in FILES.items()}
    shortest = experts["fp32"]
    epochs, count = [epoch for epoch in shortest.epochs if epoch], shortest.count
    test = catalog.load(DataConfig(name="fashion-mnist"), "test")[1]
    test_images = TestImages(test, shortest.metadata.preprocess, CPU)  # the same as that of the others
    rows = [
        {
            "precision": precision,
            "expert": expert,
            "epoch": epoch,
            "test_accuracy": accuracy_of(file, expert, epoch, test_images),
            "made_by": OPTIONS[precision],
        }
        for precision, file in experts.items()
        for expert in range(count)
        for epoch in epochs
    ]
    about = {
        "command": COMMAND,
        "date": datetime.date.today().isoformat(),
        "machine": provenance.machine_name(CPU),
        "code": provenance.code_digest(),
    }
    (ARTIFACTS / "experts-precision.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    text = table(f"{about['machine']}, {about['date']}", rows, epochs, count)
    (ARTIFACTS / "experts-precision.md").write_text(text)
    print(text)


def train(precision: str) -> None:
    """Train the experts in one precision, or go on with it; a finished file stays as it is."""
    if not FILES[precision].exists():
        words = ["experts", "-o", str(FILES[precision]), "--resume", *shlex.split(OPTIONS[precision])]
        subprocess.run([sys.executable, "-m", "dsdistill", *words], check=True, cwd=ROOT)


def table(source: str, rows: Sequence[dict[str, Any]], epochs: Sequence[int], count: int) -> str:
    """Return the records in Markdown."""
    lines = [
        f"Written by `{COMMAND}` on {source}. Test accuracy in percent",
        f"of {count} experts, mean ± sample standard deviation, in fp32 whatever they were trained in.",
        "",
        f"| trained in | {' | '.join(f'epoch {epoch}' for epoch in epochs)} |",
        "|---" * (len(epochs) + 1) + "|",
    ]
    for precision in OPTIONS:
        values = [
            [row["test_accuracy"] for row in rows if (row["precision"], row["epoch"]) == (precision, epoch)]
            for epoch in epochs
        ]
        lines.append(f"| {precision} | {' | '.join(map(spread, values))} |")
    lines += ["", f"- bf16: `dsdistill experts {OPTIONS['bf16']}`, its first {count}"]
    return "\n".join([*lines, f"- fp32: `dsdistill experts {OPTIONS['fp32']}`", ""])


def accuracy_of(experts: ExpertFile, expert: int, epoch: int, test_images: TestImages) -> float:
    """Return the accuracy in percent of one network of a file on the test images."""
    metadata, execution = experts.metadata, Execution()
    network = build_network(metadata.network, metadata.channels, metadata.size, len(metadata.classes))
    network.load_state_dict(experts.state(expert, epoch))
    return 100 * accuracies(SingleStudent(network, execution), test_images, execution)[0]


if __name__ == "__main__":
    main()
