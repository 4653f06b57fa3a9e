"""dsdistill: distil image datasets into a handful of synthetic images, in one file.

dsdistill.distill("digits.h5", dataset="digits", ipc=10)
dsdistill.evaluate("digits.h5", networks=["convnet3"])
torch.utils.data.DataLoader(dsdistill.load("digits.h5"), batch_size=256)
"""

from __future__ import annotations

from importlib import metadata

from dsdistill.api import Summary, distill, train_experts
from dsdistill.buffer import Buffer
from dsdistill.distilled import DistilledSet
from dsdistill.errors import UserError
from dsdistill.evaluation.run import evaluate
from dsdistill.runs import Interrupted
from dsdistill.storage import DistilledDataset, load

__version__ = metadata.version("dsdistill")

__all__ = [
    "Buffer",
    "DistilledDataset",
    "DistilledSet",
    "Interrupted",
    "Summary",
    "UserError",
    "__version__",
    "distill",
    "evaluate",
    "load",
    "train_experts",
]
