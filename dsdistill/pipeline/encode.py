"""The public function `dsdistill.encode`: from a set's file to one with coded images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.config.options import known_keys
from dsdistill.config.storage import Auto, CodingConfig
from dsdistill.config.validation import validate
from dsdistill.encoding.encode import encoded
from dsdistill.encoding.summary import EncodeSummary, summarise
from dsdistill.errors import UserError
from dsdistill.networks import NetworkFactory, add_network
from dsdistill.runtime.callbacks import Listener, Observer
from dsdistill.runtime.device import resolve_device
from dsdistill.runtime.estimate import refuse_dry_run
from dsdistill.storage import set_file
from dsdistill.storage.set_description import describe


def encode(
    file: str | Path,
    output: str | Path,
    *,
    bits: int | Auto | None = None,
    patch: int | Auto | None = None,
    groups: int | Auto | None = None,
    budget: str | None = None,
    refine: int | None = None,
    network: str | NetworkFactory | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    callbacks: Sequence[Listener] = (),
) -> EncodeSummary:
    """Write a set whose images take fewer bytes: a few bits a pixel, in patches with a scale each.

    >>> dsdistill.encode("set.h5", "small.h5", budget="2 kB").bytes_after < 2000
    True
    >>> dsdistill.load("small.h5").images.shape
    torch.Size([10, 1, 8, 8])

    The file is read as every set is: `load` decodes the images. Labels stay as they are. Coresets of the same
    bytes, ``--baselines random@bytes``, are coded alike when the set is evaluated.

    Args:
        file: a distilled set.
        output: the HDF5 file to write.
        bits: of a pixel, 1 to 8; default "auto": 8, or with a budget the number with the least error.
        patch: side of a patch in pixels, 0 for whole images; default "auto": whole images from 6 bits on,
            else 4.
        groups: scales that patches share, 0 for one each; default "auto": as many as the budget allows,
            else 64; whole images have their own.
        budget: bytes that images and labels may take: "7840B", "31 kB", or those of float32 images, "10
            images" or "10 ipc" (in each class).
        refine: steps that move codes so that random networks see the features of the original images;
            default 0. For sets whose stored images are training images.
        network: an architecture for these features; default the one the set was distilled in.
        seed: of every random draw.
        device: for the features: "auto", "cpu", "cuda" or "cuda:N".
        overwrite: replace an earlier output.
        callbacks: listen to the encoding, and may stop it: see `Callback`.

    Raises:
        UserError: bad input; no coding fits into the budget; the set has views, of which a teacher has seen
            the images as they are; or the output is there.
    """
    file, output = files.expanded(file), files.expanded(output).absolute()
    config = resolve(bits=bits, patch=patch, groups=groups, budget=budget, refine=refine)
    if network is not None and not config.refine:
        raise UserError("a network is for refining alone: pass refine too (--refine 500), or leave it out")
    name = "" if network is None else add_network(network)
    with Observer(callbacks) as observer:
        refuse_dry_run(observer)

        def tick(done: int) -> None:
            observer.on_progress("refining", done, config.refine)

        with files.hold_outputs([output], "an encoding"):
            _check_output(file, output, overwrite)
            distilled, before = set_file.read(file), describe(file).image_bytes
            where, notify = resolve_device(device), observer.on_notice
            result = encoded(distilled, config, name, where, seed, tick, notify)
            set_file.write(output, result, None, notify)
        assert result.coded is not None
        error = float((result.images - distilled.images).double().square().mean().sqrt())
        largest = set_file.largest_error(result, distilled)
        summary = summarise(output, result.coded.coding, before, error, largest)
        observer.on_end(summary)
    return summary


def resolve(**options: Any) -> CodingConfig:
    """Return the options of a coding.

    Args:
        options: None leaves one at its default.

    Raises:
        UserError: one is out of range.
    """
    explicit = {key: value for key, value in options.items() if value is not None}
    config: CodingConfig = validate(CodingConfig, explicit, "option", known_keys(CodingConfig))
    return config


def _check_output(file: Path, output: Path, overwrite: bool) -> None:
    """Raise a UserError where the output is the set itself, is there, or could not be written."""
    if os.path.realpath(output) == os.path.realpath(file):
        raise UserError(f"{output} is the set itself, which stays as it is; choose another name")
    set_file.check_writable(output, overwrite, ", or pass overwrite=True (--overwrite)")
