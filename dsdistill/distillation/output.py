"""The output and the run directory of a distillation: who holds them, and whose they are."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.config.options import difference, merge, table_at
from dsdistill.config.storage import CodingConfig, Storage
from dsdistill.data.real import Task
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig
from dsdistill.encoding.encode import check, encoded
from dsdistill.errors import UserError
from dsdistill.runtime.checkpoints import RunDirectory
from dsdistill.runtime.device import resolve_device
from dsdistill.runtime.notice import Notify
from dsdistill.storage import origin, set_file
from dsdistill.synthetic.distilled import DistilledSet


@contextlib.contextmanager
def held(output: Path, run: RunDirectory, dry: bool) -> Iterator[None]:
    """Keep other processes from an output and a run directory, and clear both of what a kill has left.

    Args:
        output: the file.
        run: the directory.
        dry: nothing is written, so that nothing has to be kept.

    Raises:
        UserError: another process writes one of them; or both are the same.
    """
    if os.path.realpath(output) == os.path.realpath(run.path):
        raise UserError(f"{output} cannot be both the output and the run directory; choose another --run-dir")
    with files.hold_outputs([output, run.path], "a distillation", dry):
        yield


def check_output(output: Path, run: RunDirectory, resumes: bool, overwrite: bool) -> None:
    """Find out before the run that its result could not be written, or would replace something else.

    Raises:
        UserError: saying which.
    """
    set_file.check_writable(output, overwrite or resumes, ", or pass overwrite=True (--overwrite)")
    if run.path.is_symlink() and not run.path.exists():
        raise UserError(f"{run.path} is a link that leads nowhere; remove it, or choose another --run-dir")
    if resumes and not overwrite and output.exists() and not is_of_run(output, run):
        raise UserError(
            f"{output} was not made by {run.path.name}; pass --overwrite to replace it, or name another"
        )


def is_of_run(output: Path, run: RunDirectory) -> bool:
    """Whether a file is there and holds the set of this run."""
    if not output.exists():
        return False
    return origin.is_of_run(set_file.read(output).attributes, run.config())


def written_options(run: RunDirectory) -> dict[str, Any]:
    """Return the options of a run that is resumed.

    Those that an earlier version did not have, and whose default would be another run, are as they were then.

    Raises:
        UserError: they are missing or damaged.
    """
    options = run.config()
    then: dict[str, Any] = {"compute": {"cache_real": False}}
    if table_at(options, "engine").get("kind") == "distribution":
        then["engine"] = {"batch_synthetic": 0}
    return merge(then, options)


def refuse_changes(
    written: Mapping[str, Any], config: RunConfig, run: RunDirectory, undecided: tuple[str, ...] = ()
) -> None:
    """Refuse to continue a run as another one.

    Args:
        written: the options in the run's directory.
        config: what the run would go on with.
        run: the directory.
        undecided: options that are not compared yet.

    Raises:
        UserError: naming the first option that differs.
    """
    before = configs.as_table(configs.resolve({}, (), written))  # what it lacks had its default
    if not table_at(before, "engine", "supply").get("digest"):  # begun before it was written down
        undecided = (*undecided, "engine.supply.digest")
    now = configs.as_table(config)
    if changes := difference(_with_storage(before), _with_storage(now), ignoring=undecided):
        key, earlier, later = changes[0]
        raise UserError(
            f"cannot resume {run.path.name} with {key} = {later!r}: it was started with "
            f"{earlier!r}; leave the option as it was, or start anew with --overwrite"
        )


def _with_storage(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in which the storage is one text, which a sentence can name."""
    coding = table_at(options, "storage") if isinstance(options["storage"], Mapping) else {}
    words = ", ".join(f"{key} = {value}" for key, value in coding.items() if value != "")
    return {**options, "storage": words or options["storage"]}


def check_storage(storage: Storage, task: Task) -> None:
    """Check before the run what can be known of how its images are stored.

    Raises:
        UserError: a patch is larger than an image, or the budget below one image.
    """
    if isinstance(storage, CodingConfig):
        check(storage, (task.channels, task.size, task.size), task.num_classes)


def store(
    path: Path,
    distilled: DistilledSet,
    config: RunConfig,
    notify: Notify,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Write a set as the options of its run say; as float32 where it cannot be coded so.

    Args:
        notify: receives a sentence if it cannot.
        tick: called with the number of steps of refining that are done, and of all.

    Returns:
        the largest absolute error that storing caused in a pixel.

    Raises:
        UserError: the file cannot be written.
    """
    storage = config.stored_as
    if not isinstance(storage, CodingConfig):
        return set_file.write(path, distilled, storage, notify)
    device, refine = resolve_device(config.compute.device), storage.refine
    try:
        coded = encoded(
            distilled,
            storage,
            device=device,
            seed=config.seed,
            tick=lambda done: tick(done, refine),
            notify=notify,
        )
    except UserError as error:  # not before the images are finished is it known how well they compress
        notify(f"{path.name} is stored as float32: {error}; dsdistill encode codes it with other options")
        return set_file.write(path, distilled, "float32", notify)
    set_file.write(path, coded, None, notify)
    return set_file.largest_error(coded, distilled)


def without_refining(config: RunConfig) -> RunConfig:
    """Return the options with which sets on the way are stored: refining would take its time for each."""
    storage = config.stored_as
    if not isinstance(storage, CodingConfig):
        return config
    return dataclasses.replace(config, storage=dataclasses.replace(storage, refine=0))
