"""dsdistill: distil image datasets into a handful of synthetic images, in one file.

dsdistill.distill("digits.h5", dataset="digits", ipc=10)
dsdistill.evaluate("digits.h5", networks=["convnet3"])
torch.utils.data.DataLoader(dsdistill.load("digits.h5"), batch_size=256)
"""

from __future__ import annotations

from importlib import metadata

from dsdistill.distillation.run import Summary, distill
from dsdistill.errors import UserError
from dsdistill.evaluation.run import evaluate
from dsdistill.experts.run import train_experts
from dsdistill.runtime.signals import Interrupted
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.storage.set_file import load
from dsdistill.synthetic.distilled import DistilledDataset, DistilledSet

__version__ = metadata.version("dsdistill")

__all__ = [
    "DistilledDataset",
    "DistilledSet",
    "ExpertFile",
    "Interrupted",
    "Summary",
    "UserError",
    "__version__",
    "distill",
    "evaluate",
    "load",
    "train_experts",
]
