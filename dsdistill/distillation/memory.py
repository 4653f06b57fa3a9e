"""What a run will need, before its first step."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dsdistill.data.real import RealDataset
from dsdistill.distillation.loop import Distiller
from dsdistill.networks.base import Network
from dsdistill.supply.cost import Sizes


@dataclass(frozen=True)
class Estimate:
    """Bytes a run is expected to add to the process, by cause."""

    real: int
    """The training images, as bytes, and one prepared batch of them."""
    synthetic: int
    """All that is learned, with gradient and momentum."""
    graph: int
    """Activations kept for gradients."""
    frozen: int
    """Maps alive in one pass over real images."""

    networks: int
    """Weights of every network held, with momentum where it is trained, and of a student's steps."""

    @property
    def total(self) -> int:
        return self.real + self.synthetic + self.graph + self.frozen + self.networks


def estimate(distiller: Distiller, real: RealDataset, half: bool) -> Estimate:
    """Estimate from the size of every map the network makes of one image.

    Args:
        distiller: ready to run; its network sees two blank images, without gradient.
        real: the training images.
        half: whether maps are bf16 rather than fp32. On CUDA most are not: autocast normalises in fp32.
    """
    synthetic, sources, network = distiller.synthetic, distiller.sources, distiller.sources.supply.network
    all_maps, largest_map = maps(network, synthetic.images[:1].detach())
    value_bytes = 2 if half else 4
    cost = distiller.engine.cost(
        Sizes(
            counts=real.counts,
            decoded=torch.tensor(synthetic.decoded_counts),
            copies=synthetic.copies,
            classes=distiller.classes_at_once,
            chunk=sources.learner.chunk,
            value_bytes=value_bytes,
        )
    )
    batch = cost.coupled_batch if network.couples_samples else sources.embedder.chunk
    parameters = sum(each.nbytes for each in network.parameters())
    learned = sum(each.nbytes for each in synthetic.parameters())
    averages = sum(each.nbytes for each in synthetic.buffers() if each.is_floating_point())
    return Estimate(
        real=real.images.numel() + 2 * sources.part_bytes,
        synthetic=3 * learned + averages,
        graph=cost.graph * all_maps,
        frozen=batch * 3 * largest_map * value_bytes if cost.real_per_class else 0,
        networks=sources.supply.network_bytes(distiller.iterations) + cost.weights * parameters,
    )


def maps(network: Network, image: Tensor) -> tuple[int, int]:
    """Count the elements of all layer outputs for one image [1, C, H, W], and of the largest one."""
    sizes: list[int] = []
    network = copy.deepcopy(network)  # batch normalisation would learn from the blank images

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() // 2)

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.no_grad():
            network.embed(torch.zeros_like(image).expand(2, *image.shape[1:]).contiguous())
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes), max(sizes)
