"""dsdistill: distil image datasets into a handful of synthetic images, in one file.

dsdistill.distill("digits.h5", dataset="digits", ipc=10)
dsdistill.evaluate("digits.h5", networks=["convnet3"])
torch.utils.data.DataLoader(dsdistill.load("digits.h5"), batch_size=256)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsdistill import loggers
    from dsdistill.data.sources import ImageData
    from dsdistill.distillation.summary import Summary
    from dsdistill.encoding.summary import EncodeSummary
    from dsdistill.engines import register_engine
    from dsdistill.engines.base import Engine
    from dsdistill.engines.discrepancies import Discrepancy, register_discrepancy
    from dsdistill.engines.matching import MatchingEngine
    from dsdistill.errors import UserError
    from dsdistill.evaluation.run import evaluate
    from dsdistill.experts.run import train_experts
    from dsdistill.export.run import export_set
    from dsdistill.importing.run import ImportSummary, import_set
    from dsdistill.labelling.summary import LabelSummary
    from dsdistill.loggers.progress import ProgressBar
    from dsdistill.networks.base import Network
    from dsdistill.networks.registry import register_network
    from dsdistill.pipeline.distill import distill
    from dsdistill.pipeline.encode import encode
    from dsdistill.pipeline.label import label
    from dsdistill.runtime.callbacks import Callback, StopRun
    from dsdistill.runtime.estimate import RunEstimate, dry_run
    from dsdistill.runtime.notice import Notice
    from dsdistill.runtime.signals import Interrupted
    from dsdistill.storage.expert_file import ExpertFile
    from dsdistill.storage.set_file import load
    from dsdistill.synthetic.distilled import DistilledSet
    from dsdistill.synthetic.distilled_dataset import DistilledDataset
    from dsdistill.synthetic.view_dataset import ViewDataset

    __version__: str

_HOMES = {
    "Callback": "runtime.callbacks",
    "Discrepancy": "engines.discrepancies",
    "DistilledDataset": "synthetic.distilled_dataset",
    "DistilledSet": "synthetic.distilled",
    "EncodeSummary": "encoding.summary",
    "Engine": "engines.base",
    "ExpertFile": "storage.expert_file",
    "ImageData": "data.sources",
    "ImportSummary": "importing.run",
    "Interrupted": "runtime.signals",
    "LabelSummary": "labelling.summary",
    "MatchingEngine": "engines.matching",
    "Network": "networks.base",
    "Notice": "runtime.notice",
    "ProgressBar": "loggers.progress",
    "RunEstimate": "runtime.estimate",
    "StopRun": "runtime.callbacks",
    "Summary": "distillation.summary",
    "UserError": "errors",
    "ViewDataset": "synthetic.view_dataset",
    "distill": "pipeline.distill",
    "dry_run": "runtime.estimate",
    "encode": "pipeline.encode",
    "evaluate": "evaluation.run",
    "export_set": "export.run",
    "import_set": "importing.run",
    "label": "pipeline.label",
    "load": "storage.set_file",
    "register_discrepancy": "engines.discrepancies",
    "register_engine": "engines",
    "register_network": "networks.registry",
    "train_experts": "experts.run",
}
"""Public names and the modules that define them. They are imported when they are first used, so that the
command line can answer signals before it loads torch: ``import dsdistill`` takes no time, its first use
seconds."""

__all__ = [
    "Callback",
    "Discrepancy",
    "DistilledDataset",
    "DistilledSet",
    "EncodeSummary",
    "Engine",
    "ExpertFile",
    "ImageData",
    "ImportSummary",
    "Interrupted",
    "LabelSummary",
    "MatchingEngine",
    "Network",
    "Notice",
    "ProgressBar",
    "RunEstimate",
    "StopRun",
    "Summary",
    "UserError",
    "ViewDataset",
    "__version__",
    "distill",
    "dry_run",
    "encode",
    "evaluate",
    "export_set",
    "import_set",
    "label",
    "load",
    "loggers",
    "register_discrepancy",
    "register_engine",
    "register_network",
    "train_experts",
]


if not TYPE_CHECKING:  # to which a misspelt name is to be an error

    def __getattr__(name: str) -> Any:
        """Import a public name, once."""
        import importlib
        from importlib import metadata

        if name == "__version__":
            value = metadata.version("dsdistill")
        elif name == "loggers":
            value = importlib.import_module("dsdistill.loggers")
        elif name in _HOMES:
            value = getattr(importlib.import_module(f"dsdistill.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
