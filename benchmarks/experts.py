"""Does bf16 harm experts? Three, trained from the same weights on the same batches in bf16 and in fp32.

    python benchmarks/experts.py    Fashion-MNIST, ConvNet-3, MTT's experts after each of five epochs

Every network is tested on the 10,000 test images in fp32. The experts in bf16 are those of the trajectory
suites of benchmarks/accuracy.py; both files are kept in runs/. Written to artifacts/experts-precision.json
and .md.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.accuracy import run, spread
from benchmarks.real_runs import ARTIFACTS, IN_FP32, RUNS, TRAJECTORIES
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.evaluation.accuracy import TestImages, accuracies
from dsdistill.evaluation.ensembles import SingleStudent
from dsdistill.evaluation.execution import CPU, Execution
from dsdistill.networks import build_network
from dsdistill.runtime import provenance
from dsdistill.storage.expert_file import ExpertFile

COMMAND = "python benchmarks/experts.py"


def main() -> None:
    RUNS.mkdir(exist_ok=True)
    for experts in (TRAJECTORIES, IN_FP32):
        run([experts.step])
    bf16, fp32 = ExpertFile.open(TRAJECTORIES.file), ExpertFile.open(IN_FP32.file)
    epochs, count = [epoch for epoch in fp32.epochs if epoch], fp32.count
    test = catalog.load(DataConfig(name="fashion-mnist"), "test")[1]
    test_images = TestImages(test, fp32.metadata.preprocess, CPU)  # the same as that of the others
    rows = [
        {
            "precision": precision,
            "expert": expert,
            "epoch": epoch,
            "test_accuracy": tested(buffer, expert, epoch, test_images),
            "made_by": experts.options,
        }
        for precision, experts, buffer in (("bf16", TRAJECTORIES, bf16), ("fp32", IN_FP32, fp32))
        for expert in range(count)
        for epoch in epochs
    ]
    about = {
        "command": COMMAND,
        "date": datetime.date.today().isoformat(),
        "machine": provenance.machine_name(CPU),
    }
    about["code"] = provenance.code_digest()
    (ARTIFACTS / "experts-precision.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    lines = [
        f"Written by `{COMMAND}` on {about['machine']}, {about['date']}. Test accuracy in percent",
        f"of {count} experts, mean ± sample standard deviation, in fp32 whatever they were trained in.",
        "",
        f"| trained in | {' | '.join(f'epoch {epoch}' for epoch in epochs)} |",
        "|---" * (len(epochs) + 1) + "|",
    ]
    for precision in ("bf16", "fp32"):
        found = [
            [row["test_accuracy"] for row in rows if (row["precision"], row["epoch"]) == (precision, epoch)]
            for epoch in epochs
        ]
        lines.append(f"| {precision} | {' | '.join(map(spread, found))} |")
    lines += ["", f"- bf16: `dsdistill experts {TRAJECTORIES.options}`, its first {count}"]
    lines += [f"- fp32: `dsdistill experts {IN_FP32.options}`", ""]
    (ARTIFACTS / "experts-precision.md").write_text("\n".join(lines))
    print("\n".join(lines))


def tested(buffer: ExpertFile, expert: int, epoch: int, test_images: TestImages) -> float:
    """Return the accuracy in percent of one network of a file on the test images."""
    facts, execution = buffer.metadata, Execution()
    network = build_network(facts.network, facts.channels, facts.size, len(facts.classes))
    network.load_state_dict(buffer.state(expert, epoch))
    return 100 * accuracies(SingleStudent(network, execution), test_images, execution)[0]


if __name__ == "__main__":
    main()
