"""A training step of networks with their channels outermost and innermost, in turns on this machine.

    python benchmarks/memory_format.py
    python benchmarks/memory_format.py --quick   next to nothing to do, to see that it works

A step is the cross-entropy of a batch of 64 grey images of 32x32 pixels and its gradient, not compiled.
Medians and paired ratios are printed and go to artifacts/speed-memory-format.json.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.alternate import alternate, report
from benchmarks.common import speed_record, write_record
from dsdistill.networks import build_network
from dsdistill.runtime.device import quiet_allocator

NETWORKS = ("resnet18-batch-w16", "resnet10-batch-w16", "convnet3-w64-batch", "convnet3-w64")
ORDERS = {"outermost": torch.contiguous_format, "innermost": torch.channels_last}


def step(network: str, order: str, batch: int) -> Callable[[], Any]:
    """Prepare one network in one order, and return what computes a loss and its gradient."""
    quiet_allocator()
    module = build_network(network, 1, 32, 10).train().to(memory_format=ORDERS[order])
    images, labels = torch.randn(batch, 1, 32, 32), torch.randint(0, 10, (batch,))

    def run() -> None:
        F.cross_entropy(module(images), labels).backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    batch, rounds = (2, 2) if args.quick else (64, 9)
    rows = []
    for network in NETWORKS:
        variants = {
            f"{network}, channels {order}": functools.partial(step, network, order, batch) for order in ORDERS
        }
        rows += report(alternate(variants, rounds), f"{network}, channels outermost", "step")
    if not args.quick:
        write_record(speed_record("memory-format"), rows)


if __name__ == "__main__":
    main()
