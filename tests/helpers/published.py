"""Published weights that nobody published: a library's network with random ones, in a cache of torch.hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torchvision import models

WEIGHTS = models.ShuffleNet_V2_X0_5_Weights.DEFAULT
MODEL = "torchvision:shufflenet_v2_x0_5"


def empty_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let torch.hub look for weights in an empty folder, and return that."""
    monkeypatch.setenv("TORCH_HOME", str(home))
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def stored_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> models.ShuffleNetV2:
    """Return a model with random weights, which lie in the cache under a name with the hash of their file."""
    torch.manual_seed(0)
    model = models.shufflenet_v2_x0_5(weights=None).eval()
    torch.save(model.state_dict(), cache / "weights")
    digest = hashlib.sha256((cache / "weights").read_bytes()).hexdigest()[:8]
    (cache / "weights").rename(cache / f"shufflenet-{digest}.pth")
    monkeypatch.setattr(WEIGHTS.value, "url", f"https://nowhere.invalid/shufflenet-{digest}.pth")
    return model
