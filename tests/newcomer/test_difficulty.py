"""A newcomer asks how hard each training image is, and looks at the easiest ones; by public names only."""

from __future__ import annotations

from pathlib import Path

import torch

import dsdistill


def test_the_easiest_images_are_those_that_networks_learn_first(tmp_path: Path) -> None:
    """One label in ten is wrong: hardly any of these images is among the easier half."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    images = 40 * torch.rand(200, 1, 8, 8, generator=draws) + 150 * labels.view(-1, 1, 1, 1)
    wrong = torch.randperm(200, generator=draws)[:20]
    labels[wrong] = 1 - labels[wrong]
    data = (images.to(torch.uint8), labels)
    experts = dsdistill.train_experts(
        tmp_path / "el2n.h5",
        dataset={"train": data, "test": data},
        recipe="el2n",
        network="convnet2-w8-batch",
        count=2,
        epochs=4,
        options={"batch_size": 20, "lr": 0.01},
    )
    scores = torch.stack([experts.el2n(expert) for expert in range(experts.count)]).mean(0)
    assert scores.shape == (200,)
    easier = set(scores.argsort()[:100].tolist())
    assert len(easier & set(wrong.tolist())) <= 2
