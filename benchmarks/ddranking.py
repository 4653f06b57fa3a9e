"""Our export and our scores against another program: DD-Ranking 0.2.0's evaluator for hard labels.

    pip install --no-deps ddranking==0.2.0
    pip install pandas timm tqdm pyyaml    what it imports; its own pins ask for an older NumPy than ours
    python benchmarks/ddranking.py         some minutes on two cores
    python benchmarks/ddranking.py --zca   checks whitened images too: a minute or two more

DD-Ranking knows no small data set, so real handwritten digits (scikit-learn's, at 32 pixels in RGB) are
written in CIFAR-10's layout. Both programs read that folder.

1. Loader: real images, stored as a set and exported, have to be what DD-Ranking's loader makes of them.
2. Scores: a set distilled by DM is evaluated by both, under DSA's protocol with fewer epochs. They differ as
   `dsdistill.evaluation.scores` says (DD-Ranking takes the best epoch, and the best of five rates for random
   images), and by the students' seeds, which DD-Ranking takes from the clock.

Two things in DD-Ranking are put right first: it stores every score twice, then fails to write them; and the
accuracy of the whole data set, which it would train for, is ours. Written to artifacts/ddranking.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import io
import json
import pickle
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # in place of this folder, where `import ddranking` would find this file

import torch

from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.constants import DIGITS
from dsdistill.evaluation import scores
from dsdistill.evaluation.run import evaluate
from dsdistill.export.ddranking import CONFIG, IMAGES, LABELS, LR, export_ddranking
from dsdistill.pipeline.distill import distill
from dsdistill.runtime import provenance
from dsdistill.runtime.device import quiet_allocator
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet

TRAIN, TEST = 20, 30  # real images a class
NEEDED = (
    "DD-Ranking is not here: pip install --no-deps ddranking==0.2.0, then pip install pandas timm tqdm pyyaml"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ipc", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=15, help="of DM")
    parser.add_argument("--zca", action="store_true", help="check whitened images too")
    args = parser.parse_args()
    try:
        import ddranking.metrics  # noqa: F401
    except ImportError as error:
        sys.exit(f"{NEEDED} ({error})")
    quiet_allocator()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_cifar(folder / "data")
        errors = {"standardise": loader_error(folder, zca=False)}
        if args.zca:
            errors["zca"] = loader_error(folder, zca=True)
        for kind, most in errors.items():
            print(
                f"loader, {kind}: exported images differ from DD-Ranking's by at most {most:.2g}", flush=True
            )
        rows = evaluated(folder, args)
    print(f"{'program':12s} {'HLR':>8s} {'IOR':>8s} {'LRS':>8s}   (fractions)")
    for row in rows:
        print(f"{row['judge']:12s} {row['hlr']:8.4f} {row['ior']:8.4f} {row['lrs']:8.4f}")
    record = {
        "command": f"python benchmarks/ddranking.py {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.date.today().isoformat(),
        "machine": provenance.machine_name(torch.device("cpu")),
        "packages": provenance.package_versions(),
        "loader_error": errors,
        "rows": rows,
    }
    (ROOT / "artifacts" / "ddranking.json").write_text(json.dumps(record, indent=1) + "\n")


def write_cifar(root: Path) -> None:
    """Write digits as CIFAR-10's Python batches, and have torchvision take them for the published ones."""
    from torchvision import datasets

    folder = root / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batches(split: str, per_class: int, names: list[str]) -> list[list[str]]:
        _, real = catalog.load(DataConfig(name="digits", size=32, channels=3), split)  # type: ignore[arg-type]
        rows = torch.cat([(real.labels == label).nonzero().flatten()[:per_class] for label in range(10)])
        rows = rows.view(10, -1).T.flatten()  # classes in turn, so that every batch has all
        parts = zip(names, rows.chunk(len(names)), strict=True)
        return [
            [
                name,
                write(
                    name, {"data": real.images[part].flatten(1).numpy(), "labels": real.labels[part].tolist()}
                ),
            ]
            for name, part in parts
        ]

    datasets.CIFAR10.train_list = batches("train", TRAIN, [f"data_batch_{i}" for i in range(1, 6)])
    datasets.CIFAR10.test_list = batches("test", TEST, ["test_batch"])
    md5 = write("batches.meta", {"label_names": list(DIGITS)})
    datasets.CIFAR10.meta = datasets.CIFAR10.meta | {"md5": md5}


def loader_error(folder: Path, zca: bool) -> float:
    """Return how far exported real images are from what DD-Ranking's loader makes of the same."""
    from ddranking.utils import get_dataset

    task, real = catalog.load(DataConfig(name="cifar10", root=folder / "data", zca=zca), "train")
    rows = torch.stack([(real.labels == label).nonzero()[0, 0] for label in range(10)])
    about = {"dataset": "cifar10", "protocol": "dsa", "network": "convnet3"}
    distilled = DistilledSet(
        real.unit(rows), real.labels[rows], real.classes, task.preprocess, attributes=about
    )
    path, out = folder / f"real-{zca}.h5", folder / f"real-{zca}"
    set_file.write(path, distilled)
    export_ddranking(path, out)
    with quiet():
        theirs = get_dataset("CIFAR10", str(folder / "data"), (32, 32), zca, None, "cpu")[5]
    expected = torch.stack([theirs[row][0] for row in rows.tolist()])
    return float((torch.load(out / IMAGES, weights_only=True) - expected).abs().max())


def evaluated(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Distil a set, and return the scores that each program gives it."""
    path, out = folder / "set.h5", folder / "set"
    distill(
        path,
        dataset="cifar10",
        method="dm",
        ipc=args.ipc,
        network="convnet3",
        iterations=args.iterations,
        options={"data": {"root": str(folder / "data")}, "protocol": "dsa"},
    )
    report = evaluate(
        path,
        root=folder / "data",
        protocol="dsa",
        epochs=args.epochs,
        repeats=args.repeats,
        baselines="random, full",
        device="cpu",
        precision="fp32",
        save=False,
    )
    print("ours:", ", ".join(f"{row.set} {row.mean:.2f} %" for row in report.rows), flush=True)
    ours = report.scores()["networks"]["convnet3"]
    for sentence in export_ddranking(path, out):
        print(sentence)
    whole = next(row.mean for row in report.rows if row.set == "full")
    theirs = their_scores(folder, out, whole, args)
    return [{"judge": "dsdistill", **ours}, {"judge": "DD-Ranking", **theirs}]


def their_scores(folder: Path, out: Path, whole: float, args: argparse.Namespace) -> dict[str, float]:
    """Run DD-Ranking on an exported set; LRS is ours, from its HLR and IOR as fractions."""
    from ddranking.config import Config
    from ddranking.metrics import LabelRobustScoreHard, hard_label
    from ddranking.utils import REAL_DATA_ACC_CACHE

    hard_label.save_results = lambda results, path: None
    config = Config.from_file(str(out / CONFIG))
    REAL_DATA_ACC_CACHE[f"{config.get('dataset')}-{config.get('model_name')}"] = whole
    here = {"real_data_path": folder / "data", "random_data_path": folder / "random"}
    config.update({name: str(path) for name, path in here.items()} | {"save_path": str(folder / "their.csv")})
    config.update({"device": "cpu", "eval_full_data": False, "num_eval": args.repeats})
    config.update({"num_epochs": args.epochs, "step_size": args.epochs // 2})
    images, labels, lr = (torch.load(out / name, weights_only=True) for name in (IMAGES, LABELS, LR))
    with quiet():
        metrics = LabelRobustScoreHard(config).compute_metrics(
            image_tensor=images, hard_labels=labels, syn_lr=lr
        )
    hlr, ior = (metrics[f"{name}_mean"] / 100 for name in ("hard_label_recovery", "improvement_over_random"))
    return {
        "ior": float(ior),
        "hlr": float(hlr),
        "lrs": scores.label_robust_score(ior, hlr),
        "lrs_as_it_says": float(metrics["label_robust_score_mean"]),
    }


@contextlib.contextmanager
def quiet() -> Any:
    """Keep DD-Ranking's progress off the screen."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
