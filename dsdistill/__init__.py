"""dsdistill: distil image datasets into a handful of synthetic images, in one file.

dsdistill.distill("digits.h5", dataset="digits", ipc=10)
dsdistill.evaluate("digits.h5", networks=["convnet3"])
torch.utils.data.DataLoader(dsdistill.load("digits.h5"), batch_size=256)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsdistill.data.sources import ImageData
    from dsdistill.distillation.run import Summary, distill
    from dsdistill.errors import UserError
    from dsdistill.evaluation.run import evaluate
    from dsdistill.experts.run import train_experts
    from dsdistill.runtime.signals import Interrupted
    from dsdistill.storage.expert_file import ExpertFile
    from dsdistill.storage.set_file import load
    from dsdistill.synthetic.distilled import DistilledDataset, DistilledSet

    __version__: str

_HOMES = {
    "DistilledDataset": "synthetic.distilled",
    "DistilledSet": "synthetic.distilled",
    "ExpertFile": "storage.expert_file",
    "ImageData": "data.sources",
    "Interrupted": "runtime.signals",
    "Summary": "distillation.run",
    "UserError": "errors",
    "distill": "distillation.run",
    "evaluate": "evaluation.run",
    "load": "storage.set_file",
    "train_experts": "experts.run",
}
"""Public names and the modules that define them. They are imported when they are first used, so that the
command line can answer signals before it loads torch: ``import dsdistill`` takes no time, its first use
seconds."""

__all__ = [
    "DistilledDataset",
    "DistilledSet",
    "ExpertFile",
    "ImageData",
    "Interrupted",
    "Summary",
    "UserError",
    "__version__",
    "distill",
    "evaluate",
    "load",
    "train_experts",
]


def __getattr__(name: str) -> Any:
    """Import a public name, once."""
    import importlib
    from importlib import metadata

    if name == "__version__":
        value: Any = metadata.version("dsdistill")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"dsdistill.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
