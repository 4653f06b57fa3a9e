"""How much memory a run takes, estimated before its first step.

Maps dominate. Each kind of pass is made once with two images and once with four, uncompiled, and the tensors
alive at once are counted; so whatever a network is made of, what its layers keep for a gradient and hold on
the way back is known. An engine says how many images of each kind there are at once (`Engine.cost`). What a
process takes besides tensors is measured: `benchmarks/memory_estimates.py` compares all of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.compute.recomputed import is_parted
from dsdistill.data.real import RealDataset
from dsdistill.distillation.loop import Distiller
from dsdistill.networks.base import Network
from dsdistill.runtime.allocations import Allocations, beside_tensors, peak_of
from dsdistill.seeding import generator
from dsdistill.supply.cost import Cost, Sizes

_JOINED = 3
"""Copies of the features of real images: of each chunk, joined, and outside of inference mode."""

_CLUSTERED = 6
"""Copies of the features of a class that is clustered: joined, outside of inference mode, and two, twice as
large, in float64, of which one is that of scikit-learn."""

_PREPARED_TOGETHER = 64
"""Real images that are augmented to see what that takes: enough for every operator."""


@dataclass(frozen=True)
class Estimate:
    """Bytes a run is expected to add to the process, once all modules are imported, by cause."""

    real: int
    """The training images, as bytes."""
    synthetic: int
    """All that is learned, with gradients and what optimisers remember."""
    graph: int
    """The pass that takes most: maps kept for a gradient, and what is alive on the way back."""
    frozen: int
    """What embedding real images takes above that, beside a graph that waits for its gradient."""
    networks: int
    """Weights of every network held, with momentum where it is trained, and of a student's steps."""
    allocator: int
    """What lies unused between maps, the workspace of kernels, and the compiler; none on a GPU."""
    cached: int = 0
    """What is computed of real images once and kept, when all of it is there."""

    @property
    def tensors(self) -> int:
        """All tensors, the training images among them."""
        return self.total - self.allocator

    @property
    def total(self) -> int:
        held = self.real + self.synthetic + self.networks + self.cached
        return held + self.graph + self.frozen + self.allocator


@dataclass(frozen=True)
class Line:
    """Bytes as a function of the images in a pass: what it takes for any of them, and for each."""

    fixed: int
    each: int

    @classmethod
    def through(cls, two: int, four: int) -> Line:
        """Draw the line through the bytes for two images and for four."""
        each = max(0, four - two) // 2
        return cls(max(0, two - 2 * each), each)

    def at(self, images: int) -> int:
        """Return the bytes for a number of images; none take nothing."""
        return self.fixed + self.each * images if images else 0


def estimate(distiller: Distiller, real: RealDataset) -> Estimate:
    """Estimate from passes of a few images.

    Args:
        distiller: ready to run; its network makes passes of blank images, and is left as it was.
        real: the training images.
    """
    synthetic, sources = distiller.synthetic, distiller.sources
    network = sources.supply.network
    passes = Passes(distiller)
    cost = distiller.engine.cost(
        Sizes(
            counts=real.counts,
            decoded=torch.tensor(synthetic.decoded_counts),
            size=sources.task.size,
            device=synthetic.images.device.type,
            copies=synthetic.copies,
            classes=distiller.classes_at_once,
            chunk=sources.learner.chunk if not network.couples_samples else len(real),
            parted=is_parted(network),
            feature_dim=passes.feature_dim(),
            compensators=synthetic.compensator_count,
        )
    )
    learned = sum(each.nbytes for each in synthetic.parameters())
    averages = sum(each.nbytes for each in synthetic.buffers() if each.is_floating_point())
    parameters = sum(each.nbytes for each in network.parameters())
    graph, frozen = _passes(distiller, cost, passes)
    networks = sources.supply.network_bytes(distiller.iterations) + cost.weights * parameters
    device, compiled = synthetic.images.device, sources.learner.compiled
    return Estimate(
        real=sources.data.memory_bytes,
        synthetic=2 * learned + distiller.optimiser_bytes() + averages,
        graph=graph,
        frozen=frozen,
        networks=networks,
        allocator=beside_tensors(graph + frozen, device, compiled, second_order=bool(cost.dual)),
        cached=sources.cache.bytes if sources.cache and sources.cache.in_memory else 0,
    )


def _passes(distiller: Distiller, cost: Cost, passes: Passes) -> tuple[int, int]:
    """Return the bytes of the pass that takes most, and by how much comparing with real images takes more."""
    copies = cost.images * distiller.synthetic.images[0].nbytes
    most = [
        passes.training().at(cost.training) if cost.training else 0,
        passes.dual(cost.dual_to_weights).at(cost.dual) if cost.dual else 0,
        _clustering(distiller, cost, passes),
    ]
    comparing = 0
    if cost.pixels:
        kept, peak = passes.pixels()
        most.append(peak.at(cost.pixels))
        comparing = max(_with_real_images(distiller, cost, passes), _clustering(distiller, cost, passes))
        comparing += (copies + kept.at(cost.pixels)) if cost.beside_graph else 0
    graph = copies + max(most)
    return graph, max(0, comparing - graph)


def _with_real_images(distiller: Distiller, cost: Cost, passes: Passes) -> int:
    """Return what real images take: they are prepared, embedded part by part, and their features compared."""
    sources, image = distiller.sources, distiller.synthetic.images[0].nbytes
    coupled = sources.supply.network.couples_samples
    part = cost.real_at_once if coupled else min(cost.real_at_once, sources.part_bytes // image)
    chunk = part if coupled else min(part, sources.embedder.chunk)
    features = _JOINED * 4 * part * passes.feature_dim()
    embedding = part * image + max(features, passes.frozen().at(chunk))
    return max(part * passes.prepared(), embedding, 4 * cost.features)


def _clustering(distiller: Distiller, cost: Cost, passes: Passes) -> int:
    """Return what clustering a class takes: its images are embedded part by part, and all features kept."""
    if not cost.clustered:
        return 0
    sources, image = distiller.sources, distiller.synthetic.images[0].nbytes
    coupled = sources.supply.network.couples_samples
    part = cost.clustered if coupled else min(cost.clustered, max(1, sources.part_bytes // image))
    chunk = part if coupled else min(part, sources.embedder.chunk)
    features = _CLUSTERED * 4 * cost.clustered * passes.feature_dim()
    return part * image + max(features, passes.frozen().at(chunk))


class Passes:
    """The bytes of tensors in each kind of pass through the network of a run."""

    def __init__(self, distiller: Distiller) -> None:
        self._network = distiller.sources.supply.network
        self._sources = distiller.sources
        self._embedder, self._learner = distiller.sources.embedder, distiller.sources.learner
        self._like = torch.zeros_like(distiller.synthetic.images[:1])

    def feature_dim(self) -> int:
        """Return how many values are compared of one image."""
        with _left_as_it_was(self._network), torch.no_grad():
            return self._embedder.uncompiled(self._like.expand(2, *self._like.shape[1:])).shape[1]

    def prepared(self) -> int:
        """Return the bytes that are alive, for each image, while real ones are preprocessed and augmented."""
        sources = self._sources
        count = min(_PREPARED_TOGETHER, len(sources.data))
        stream = generator(sources.seed, "memory")
        rows = sources.augmentation.draw(count, sources.task.size, stream, shared_operator=False)

        def prepare() -> Tensor:
            return sources.augmentation(sources.batches.images(torch.arange(count)), rows)

        return peak_of(prepare) // count

    def pixels(self) -> tuple[Line, Line]:
        """Differentiate features to the pixels: return what is kept for it, and the most that is alive."""

        def differentiate(images: Tensor, allocations: Allocations) -> int:
            features = self._embedder.uncompiled(images.requires_grad_())
            kept = allocations.count()
            features.sum().backward()
            return kept

        (two, two_peak), (four, four_peak) = self._both(differentiate)
        return Line.through(two, four), Line.through(two_peak, four_peak)

    def frozen(self) -> Line:
        """Embed without a gradient."""

        def embed(images: Tensor, _: Allocations) -> int:
            with torch.no_grad():
                self._embedder.uncompiled(images)
            return 0

        return self._peak(embed)

    def training(self) -> Line:
        """Differentiate the loss to the weights, whose gradient counts."""

        def train(images: Tensor, _: Allocations) -> int:
            weights = self._learner.weights(list(dict(self._network.named_parameters())))
            loss = self._learner.uncompiled_loss(weights, images, self._targets(images))
            torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            return 0

        return self._peak(train)

    def dual(self, to_weights: bool) -> Line:
        """Differentiate the directional derivative of the loss to the pixels; ``to_weights``, to them too."""

        def differentiate(images: Tensor, _: Allocations) -> int:
            names = [name for name, _ in self._network.named_parameters()]
            weights = self._learner.weights(names if to_weights else ())
            leaves = [images.requires_grad_(), *(weights.values() if to_weights else ())]
            jvp = self._learner.uncompiled_jvp(images, self._targets(images), weights, weights)
            torch.autograd.grad(jvp, leaves, allow_unused=True)
            return 0

        return self._peak(differentiate)

    def _targets(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), dtype=torch.int64, device=images.device)

    def _peak(self, run: Callable[[Tensor, Allocations], int]) -> Line:
        return Line.through(*(peak for _, peak in self._both(run)))

    def _both(self, run: Callable[[Tensor, Allocations], int]) -> list[tuple[int, int]]:
        """Return what a pass returns and the most bytes alive in it, for two images and for four."""
        results = []
        with _left_as_it_was(self._network):
            for count in (2, 4):
                images = self._like.expand(count, *self._like.shape[1:]).contiguous()
                with Allocations() as allocations:
                    returned = run(images, allocations)
                results.append((returned, allocations.peak))
        return results


@contextlib.contextmanager
def _left_as_it_was(network: Network) -> Iterator[None]:
    """Undo what passes change: batch normalisation would learn from the blank images."""
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
