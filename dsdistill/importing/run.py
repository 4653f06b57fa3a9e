"""Import: from a source that another program left to a distilled set's file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dsdistill import files
from dsdistill.config.sharing import shared
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.constants import CONSTANTS, IMAGENET_CONSTANTS
from dsdistill.data.memory import InMemory, opened
from dsdistill.data.preprocess import Preprocess, Standardise
from dsdistill.data.real import Task
from dsdistill.data.sources import DataSource
from dsdistill.errors import UserError, unknown
from dsdistill.importing import spaces
from dsdistill.importing.labels import labels_of
from dsdistill.importing.registry import FORMATS, recognise
from dsdistill.importing.source import Format, Request, Source, Space
from dsdistill.protocol import PROTOCOLS, load_protocol
from dsdistill.runtime.callbacks import Listener, Observer
from dsdistill.runtime.estimate import refuse_dry_run
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet, Scalar
from dsdistill.text import plain


@dataclass(frozen=True)
class ImportSummary:
    """How an import went.

    >>> torch.save(torch.zeros(20, 1, 8, 8), "blank.pt")
    >>> summary = dsdistill.import_set("blank.pt", "blank.h5", dataset="digits")
    >>> summary.path.name, summary.format, summary.space, summary.images
    ('blank.h5', 'tensors', 'unit', 20)

    Attributes:
        path: the file that was written.
        format: as which the source was read; see `import_set`.
        space: that its pixels were in: unit, standardised or zca.
        images: how many were stored.
        notices: sentences on what was inferred, which the callbacks received.
    """

    path: Path
    format: str
    space: str
    images: int
    notices: tuple[str, ...]


def import_set(
    source: str | Path,
    output: str | Path,
    *,
    dataset: DataSource,
    format: str = "auto",
    space: str = "auto",
    labels: str | Path | None = None,
    factor: int | None = None,
    which: int | None = None,
    constants: str | None = None,
    lr: float | None = None,
    method: str | None = None,
    protocol: str | None = None,
    root: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    download: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Listener] = (),
) -> ImportSummary:
    """Make a distilled set's file of what another program distilled.

    >>> torch.save({"images": torch.zeros(20, 1, 8, 8), "labels": torch.arange(20) % 10}, "theirs.pt")
    >>> summary = dsdistill.import_set("theirs.pt", "imported.h5", dataset="digits")
    >>> dsdistill.load("imported.h5").attributes["imported_from"]
    'theirs.pt (tensors)'

    Args:
        source: a file or a folder.
        output: the HDF5 file to write.
        dataset: the data set that it was distilled from, as `distill` takes it: it gives class names and
            preprocessing, and is what the set is evaluated on.
        format: "tensors" (.pt, .npy, .npz, .safetensors), "mtt" (images_best.pt of MTT, TESLA, DATM), "idc"
            (data.pt of IDC and NCFM), "dc" (res_….pt of DC, DSA, DM, IDM), "ddranking", "pictures" (folders
            by class), "h5"; "auto" tells it from names.
        space: of the pixels: "unit" (0 black, 1 white), "standardised", "zca" (whitened), or "auto": as the
            format says, else as the values tell.
        labels: a file of labels, where the source has none, and no labels.* lies beside it.
        factor: each stored image is decoded into factor × factor training images.
        which: of several sets in a source, counted from 0.
        constants: the data set whose mean and deviation standardised the pixels, or "imagenet"; default
            ``dataset``'s, or what the format is known to use.
        lr: learning rate of students that was learned with the set, where the source does not hold it.
        method: its name in results; default "imported", or what a .h5 says.
        protocol: name of the protocol of its evaluation; default that of the format's paper, else dm.
        root, download: folder of the data sets; whether to fetch a missing one.
        size, channels: of the images, if other than the data set's own; pictures are resized to it.
        overwrite: replace an earlier set at ``output``.
        callbacks: their `on_notice` receives a sentence on each thing that was inferred.

    Raises:
        UserError: the source is missing, damaged, of no known format, or holds no images; its labels, classes
            or image sizes do not fit the data set; its space is unclear; or the output cannot be written.
    """
    path, output = files.expanded(source), files.expanded(output)
    with Observer(callbacks) as observer:
        refuse_dry_run(observer)
        set_file.check_writable(output, overwrite, ", or pass overwrite=True (--overwrite)")
        statements = _Statements.checked(space, constants, lr, method, protocol)
        path, kind = recognise(path, format)
        _check_options(kind, labels=labels, factor=factor, which=which, constants=constants)
        root = None if root is None else files.expanded(root)
        options = DataConfig(name="", root=root, size=size, channels=channels, download=download)
        original = _Original.load(dataset, options, observer)
        task = original.task
        labels = None if labels is None else files.expanded(labels)
        request = Request(
            dataset=task.name, channels=task.channels, labels=labels, factor=factor, which=which, size=size
        )
        origin = f"{plain(path.absolute().name)} ({kind.name})"
        imported = _imported(kind.read(path, request), statements, original, origin)
        notices = (f"read as {kind.name}: {kind.about}", *imported.notices)
        for sentence in notices:
            observer.on_notice(sentence)
        set_file.write(output, imported.distilled, notify=observer.on_notice)
        return ImportSummary(output, kind.name, imported.space, len(imported.distilled.images), notices)


@dataclass(frozen=True)
class _Statements:
    """What the user says about a source, which counts more than what the source says itself.

    Attributes:
        space, constants, lr, method, protocol: as `import_set` takes them; None where nothing was said.
    """

    space: Space | None
    constants: str | None
    lr: float | None
    method: str | None
    protocol: str | None

    @classmethod
    def checked(
        cls, space: str, constants: str | None, lr: float | None, method: str | None, protocol: str | None
    ) -> _Statements:
        """Check the statements before anything is read.

        Raises:
            UserError: the name of the method is unfit, another name is unknown, or the rate is no rate.
        """
        statements = cls(spaces.named(space), constants, lr, method, protocol)
        _check_names(method, protocol, constants)
        if lr is not None and not 0 < lr < math.inf:
            raise UserError(f"the learning rate must be a number above 0, not {lr:g}")
        return statements

    def replace(self, source: Source) -> Source:
        """Return a source that says what the user says."""
        return dataclasses.replace(
            source,
            space=self.space or source.space,
            constants=self.constants or source.constants,
            lr=source.lr if self.lr is None else self.lr,
            protocol=self.protocol or source.protocol,
        )


@dataclass(frozen=True, eq=False)
class _Original:
    """The data set that a source was distilled from.

    Attributes:
        task: its classes and preprocessing.
        memory: the data, if they are in memory.
    """

    config: DataConfig
    task: Task
    memory: InMemory | None
    observer: Observer

    @classmethod
    def load(cls, dataset: DataSource, options: DataConfig, observer: Observer) -> _Original:
        """Read what the evaluation will read, too.

        Args:
            options: how to present the data, which have no name yet.

        Raises:
            UserError: as `catalog.load`.
        """
        name, memory = opened(dataset)
        config = dataclasses.replace(options, name=name or "")
        memory = catalog.opened(config, memory)
        task, _ = catalog.load(config, "test", observer, memory)
        return cls(config, task, memory, observer)

    def whitening(self) -> Preprocess:
        """Fit ZCA on the train split, which takes long, or read it from the cache."""
        config = dataclasses.replace(self.config, zca=True)
        return catalog.load(config, "train", self.observer, self.memory)[0].preprocess


@dataclass(frozen=True, eq=False)
class _Imported:
    """A set before it is written.

    Attributes:
        space: that its pixels were in.
        notices: sentences on what was inferred.
    """

    distilled: DistilledSet
    space: Space
    notices: tuple[str, ...]


def _imported(source: Source, statements: _Statements, original: _Original, origin: str) -> _Imported:
    """Bring what was read to unit space and to the order of the classes, and say how it was made.

    Args:
        origin: name and format of the source.

    Raises:
        UserError: pixels, labels or protocol do not fit; see `import_set`.
    """
    task = original.task
    trusted = statements.space is not None or source.states_space or source.preprocess is not None
    source = statements.replace(source)
    pixels = _pixels(source, task, original.whitening, trusted)
    labels = labels_of(source, task)
    attributes, sentences = _attributes(source, task, original.config, statements.protocol is not None)
    attributes["method"] = statements.method or str(attributes.get("method", "imported"))
    attributes["imported_from"] = origin
    distilled = DistilledSet(
        images=pixels.images[labels.order],
        labels=labels.hard,
        classes=task.classes,
        preprocess=pixels.preprocess,
        soft_labels=labels.soft,
        multi_formation=source.multi_formation,
        attributes=attributes,
    )
    return _Imported(distilled, pixels.space, (*source.notices, *pixels.notices, *labels.notices, *sentences))


def _check_names(method: str | None, protocol: str | None, constants: str | None) -> None:
    """Check the names of a method, a protocol and constants before anything is read.

    Raises:
        UserError: the method's is empty, or another one is unknown.
    """
    if method is not None and (not method.strip() or plain(method, 80) != method):
        raise UserError(
            "the name of the method is empty, too long or not in one line; choose another --method"
        )
    if protocol is not None and protocol not in PROTOCOLS.names():
        raise unknown("protocol", protocol, PROTOCOLS.names())
    if constants is not None and constants not in _CONSTANTS:
        raise unknown("data set with constants", constants, _CONSTANTS)


def _check_options(kind: Format, **options: object) -> None:
    """Refuse an option that says nothing about sources of a format."""
    for name, value in options.items():
        if value is not None and name not in kind.options:
            takers = ", ".join(each.name for each in FORMATS.values() if name in each.options)
            raise UserError(f"--{name} is for {takers}, not for {kind.name}; leave it out")


_CONSTANTS = CONSTANTS | {"imagenet": IMAGENET_CONSTANTS}


@dataclass(frozen=True, eq=False)
class _Pixels:
    images: Tensor
    preprocess: Preprocess
    space: Space
    notices: tuple[str, ...]


def _pixels(source: Source, task: Task, whitening: Callable[[], Preprocess], trusted: bool) -> _Pixels:
    """Bring the images of a source to unit space, and check that they are of the data set's shape.

    Args:
        trusted: whether the user or the source itself names the space. Learned pixels may lie anywhere, so
            that strange ones are then told of, and refused otherwise.
    """
    own = task.preprocess if source.constants is None else Standardise.of(*_CONSTANTS[source.constants])
    standardise = own if source.preprocess is None else source.preprocess
    images, scale = spaces.to_float(source.images)
    repeated = (task.channels, images.shape[1]) == (1, 3)  # grey images in three channels
    _check_shape(images[:, :1] if repeated else images, task)
    notices = []
    if (space := source.space) is None:
        space, how = spaces.infer(images, standardise)
        notices = [scale, how]
    whiten = whitening if source.preprocess is None else lambda: standardise
    unit, preprocess = spaces.to_unit(images, space, standardise, whiten)
    if (doubt := spaces.doubt(unit, space)) and not trusted:
        raise UserError(f"{doubt}; if they are {spaces.WORDS[space]}, pass --space {space}, else another one")
    if doubt and source.preprocess is None:
        notices.append(f"{doubt}; where that is wrong, pass another --space")
    if repeated:
        if bool((unit - unit[:, :1]).abs().max() > 1e-4):
            _check_shape(unit, task)
        unit, preprocess = unit[:, :1].contiguous(), task.preprocess
    else:
        preprocess = source.preprocess or preprocess or task.preprocess
    return _Pixels(unit, preprocess, space, tuple(filter(None, notices)))


def _check_shape(images: Tensor, task: Task) -> None:
    """Refuse images of another shape than the data set's.

    Raises:
        UserError: they are; the sentence names the options that load the data set so.
    """
    channels, height, width = images.shape[1:]
    if (channels, height, width) == task.shape:
        return
    theirs, ours = (f"{c}x{h}x{w}" for c, h, w in ((channels, height, width), task.shape))
    options = [
        f"--{name} {value}"
        for name, value, own in (("channels", channels, task.channels), ("size", height, task.size))
        if value != own
    ]
    remedy = f"; pass {' '.join(options)} to evaluate on real images of that shape" if height == width else ""
    raise UserError(
        f"the images are {theirs} (channels, height, width) and those of {task.name} {ours}{remedy}"
    )


def _attributes(
    source: Source, task: Task, config: DataConfig, is_users: bool
) -> tuple[dict[str, Scalar], list[str]]:
    """Return the provenance of an imported set, and sentences on its protocol.

    There is no fingerprint, because nobody knows which copy of the data the set was distilled from.

    Args:
        is_users: whether the user named the protocol.

    Raises:
        UserError: the protocol that the user named takes a learned rate, and there is none.
    """
    protocol = source.protocol or str(source.attributes.get("protocol", "dm"))
    rate = source.lr if source.lr is not None else source.attributes.get("learned_lr")
    notices = []
    is_packaged = not protocol.endswith(".toml")  # of a .h5, the file of somebody's own
    if rate is None and is_packaged and load_protocol(protocol, task.name, 1).lr == "learned":
        if is_users:
            raise UserError(
                f"protocol {protocol} takes a learned learning rate; pass --lr, or another protocol"
            )
        notices.append(
            f"the source holds no learning rate, which protocol {protocol} takes: protocol dm is stored; "
            f"where it is known, pass --lr RATE --protocol {protocol}"
        )
        protocol = "dm"
    options = dataclasses.replace(config, size=task.size, channels=task.channels)
    table = {key: value for key, value in dataclasses.asdict(options).items() if value is not None}
    attributes: dict[str, Scalar] = {
        **source.attributes,
        **({} if rate is None else {"learned_lr": rate}),
        "dataset": task.name,
        "data": json.dumps(shared({"data": table})["data"]),
        "protocol": protocol,
    }
    return attributes, notices
