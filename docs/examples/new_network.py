"""A network of one's own: any module that maps images [B, C, H, W] to logits [B, K].

The command line takes it as well: ``dsdistill distill --network new_network.py:SmallNet …``.
"""

import torch
from torch import Tensor, nn

import dsdistill


class SmallNet(nn.Module):
    """Two convolutions; the features that methods match are the input of ``head``."""

    def __init__(self, channels: int, size: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(4, width)
        self.head = nn.Linear(width * (size // 4) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.first(x).relu(), 2)
        x = torch.max_pool2d(self.norm(self.second(x)).relu(), 2)
        logits: Tensor = self.head(x.flatten(1))
        return logits


if __name__ == "__main__":
    dsdistill.distill("small.h5", dataset="digits", ipc=2, iterations=20, network=SmallNet)
    print(dsdistill.evaluate("small.h5", networks=[SmallNet, "convnet2"], epochs=20).rows)
