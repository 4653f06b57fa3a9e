"""Judging a file: from its name to a report, with everything in between found or defaulted."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json as json_format
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines as real_sets
from dsdistill.evaluation.evaluate import Auto, Progress, check_fit, judge
from dsdistill.evaluation.report import Report
from dsdistill.evaluation.rows import Row
from dsdistill.networks import check_network
from dsdistill.protocol import load_protocol
from dsdistill.runtime import provenance
from dsdistill.runtime.device import full_float32, resolve_device, resolve_precision
from dsdistill.runtime.notice import Notify, silent
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledDataset


def evaluate(
    file: str | Path,
    *,
    dataset: str | None = None,
    root: str | Path | None = None,
    protocol: str | Path | None = None,
    networks: str | Sequence[str] = (),
    repeats: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    compile: bool | Auto = "auto",
    stack: bool | Auto = "auto",
    baselines: str | Sequence[str] = ("random",),
    scores: bool = False,
    json: str | Path | None = None,
    save: bool = True,
    resume: bool = False,
    download: bool = False,
    notify: Notify = lambda message: None,
    progress: Progress = lambda what, done, total: None,
    decoding: Progress = silent,
) -> Report:
    """Train fresh students on a distilled set and on its baselines, test them, and report.

    >>> report = dsdistill.evaluate("set.h5", epochs=2, repeats=2)
    >>> [(row.set, row.images, len(row.values)) for row in report.rows]
    [('distilled', 10, 2), ('random', 10, 2)]

    Args:
        file: a distilled set.
        dataset: what to judge on; default the one the file names, read with the options the file names.
        root: where data sets lie.
        protocol: a protocol's name or TOML file; default the one of the method that made the file, else dm.
        networks: names, or one string with commas; default the network the set was distilled with, else the
            protocol's student.
        repeats, epochs: in place of the protocol's.
        compile, stack: see ``dsdistill.evaluation.evaluate.judge``.
        baselines: names (see ``dsdistill.evaluation.baselines``), or one string with commas; "" for none.
        scores: measure what DD-Ranking's scores need besides the baselines random and whole; see
            ``dsdistill.evaluation.evaluate.judge``. What can be computed of them is reported either way.
        json: also write the report here.
        save: also add the results to the file.
        resume: take over what the file's results say of the same evaluation, and train only what is left.
        download: fetch a missing data set.
        decoding: called with (what, done, total) while picture files are read.

    Raises:
        UserError: anything that does not exist, cannot be read or written, or does not fit.
    """
    file = Path(file).expanduser()
    distilled = set_file.load(file)
    named = protocol or str(distilled.attributes.get("protocol", "dm"))
    chosen = load_protocol(named, repeats=repeats, epochs=epochs)
    where = resolve_device(device)
    exact = resolve_precision(precision, where)
    students = _listed(networks) or _listed(str(distilled.attributes.get("network", ""))) or [chosen.student]
    for student in students:
        check_network(student)
    beside = real_sets.expanded(_listed(baselines))
    for name in beside:
        real_sets.check(name)
    if json is not None:
        files.check_replaceable(json, ".json")
    if json is not None:
        files.check_folder(json)  # before hours of training, not after
    if save:
        try:
            files.check_folder(file)
        except UserError as error:
            raise UserError(f"{error}, or pass --no-save (save=False) to leave the file as it is") from error

    config = _data(distilled, dataset, root, download)
    kind, _, lay = config.name.partition(":")
    if kind in ("folder", "npz") and dataset is None and not Path(lay).expanduser().exists():
        raise UserError(
            f"the data that the set was distilled from are no longer at {lay}; pass --dataset {kind}:PATH "
            "where they lie now"
        )
    task, train = catalog.load(config, "train", notify, decoding)
    check_fit(distilled, task)
    _, test = catalog.load(config, "test", notify, decoding)
    if distilled.attributes.get("fingerprint", train.fingerprint) != train.fingerprint:
        notify(f"{config.name} on this machine is not the data the set was distilled from")

    cost = _cost(file)
    affordable = real_sets.affordable(train, int(cost["image_bytes"] + cost["label_bytes"]), seed)
    report = Report(
        rows=[],
        file=str(file),
        dataset=config.name,
        protocol=chosen.name,
        epochs=chosen.epochs,
        repeats=chosen.repeats,
        lr=chosen.learning_rate(distilled.lr),
        seed=seed,
        precision=exact,
        device=str(where),
        machine=provenance.machine_name(where),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        packages=provenance.package_versions(),
        soft_labels=distilled.soft_labels is not None,
        conditions=_digest(chosen.training, train.fingerprint, test.fingerprint, provenance.code_digest()),
        cost=cost | {"real_images": float(affordable)},
        distil_machine=str(made_on) if (made_on := distilled.attributes.get("machine")) else None,
    )

    known = report.recorded(file) if resume else []
    if resume and (there := len(set_file.results(file))):
        others = "of other settings, data, code or machines"
        notify(f"{len(known)} of the {there} rows in the file are kept" + f": all are {others}" * (not known))

    def finished(row: Row) -> None:  # kept at once: an evaluation that is stopped loses what is unfinished
        if save:
            report.append_to(file, row)

    with full_float32():
        report.rows[:] = judge(
            distilled,
            task,
            train,
            test,
            chosen,
            students,
            seed=seed,
            device=where,
            precision=exact,
            compile=compile,
            stack=stack,
            baselines=beside,
            affordable=affordable,
            scores=scores,
            known=known,
            notify=notify,
            progress=progress,
            finished=finished,
        )
    if json is not None:
        report.write_json(json)
    return report


def _listed(names: str | Sequence[str]) -> list[str]:
    parts = names.split(",") if isinstance(names, str) else names
    return [part.strip() for part in parts if part.strip()]


def _data(
    distilled: DistilledDataset, dataset: str | None, root: str | Path | None, download: bool
) -> DataConfig:
    """Say how to read the data a set was made from, at its size and channels.

    The set brings its own whitening: none is fitted. Where the data lay is tried first, if it is still there.
    """
    about = distilled.attributes
    known = {field.name for field in dataclasses.fields(DataConfig)} - {"download", "zca"}
    written = json_format.loads(str(about.get("data", "{}")))
    options = {key: value for key, value in written.items() if key in known}
    options["name"] = dataset or options.get("name") or about.get("dataset")
    if not options["name"]:
        raise UserError("the file does not say what it was distilled from; name the data set")
    _, options["channels"], options["size"], _ = distilled.images.shape
    lay = options.pop("root", None)
    if root is not None:
        options["root"] = Path(root)
    elif lay and Path(lay).is_dir():
        options["root"] = Path(lay)
    return DataConfig(download=download, **options)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json_format.dumps(parts, sort_keys=True).encode()).hexdigest()


def _cost(file: str | Path) -> dict[str, float]:
    about = set_file.describe(file)
    known = {"seconds": "distil_seconds", "peak_memory_bytes": "distil_peak_bytes"}
    said = {name: float(about.attributes[key]) for key, name in known.items() if key in about.attributes}
    sizes = {"file": about.file_bytes, "image": about.image_bytes, "label": about.label_bytes}
    sizes["preprocess"] = about.preprocess_bytes
    return {f"{name}_bytes": float(size) for name, size in sizes.items()} | said
