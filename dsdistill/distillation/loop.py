"""The loop: every `Distiller.step` moves the synthetic set by one iteration."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.pixel_optimiser import PixelOptimiser, Plateau, make_pixel_optimiser
from dsdistill.distillation.multisize import SubsetChoice
from dsdistill.engines.base import Engine
from dsdistill.engines.matching import MatchingEngine
from dsdistill.engines.sources import Sources
from dsdistill.errors import UserError
from dsdistill.runtime.ranks import Ranks
from dsdistill.synthetic.set import SyntheticSet


@dataclass(frozen=True)
class IterationReport:
    """One iteration that has been taken.

    Attributes:
        iteration: how many have been taken in all, this one included.
        terms: detached scalars, summed over classes, on the device: reading one waits for it.
        discarded: whether the engine had it leave everything as it was.
        learned: scalars that are learned beside the pixels, such as a student's learning rate, as they are
            now; detached, on the device.
        caching: seconds of it that computed what later iterations find in the cache of real images.
    """

    iteration: int
    terms: dict[str, Tensor]
    discarded: bool = False
    learned: dict[str, Tensor] = field(default_factory=dict)
    caching: float = 0.0


class Distiller:
    """Owns the optimisers and the step counter. Its caller owns progress, checkpoints and evaluation.

    Attributes:
        synthetic: what is learned.
        iteration: steps taken.
        iterations: steps to take in all.
        subset: the first images of each class that are matched beside all of them.
    """

    def __init__(
        self,
        engine: Engine[Any],
        synthetic: SyntheticSet,
        sources: Sources[Any],
        optimiser: OptimiserConfig,
        iterations: int,
        class_chunk: int = 0,
        size_period: int = 0,
    ) -> None:
        """Prepare the loop.

        Args:
            engine: what is minimised.
            synthetic: on the device it is to be optimised on.
            sources: what the engine draws from.
            optimiser: how pixels are stepped.
            iterations: steps to take in all.
            class_chunk: classes whose graphs are held at once, 0 for all. Their gradients add up to that of
                all classes together. Ignored where the loss is no sum over classes.
            size_period: iterations between choices of a subset that is matched beside the whole set, if that
                has ``sizes``.

        Raises:
            UserError: the processes of ``sources.ranks`` cannot share the loss.
        """
        self.engine = engine
        self.synthetic = synthetic
        self.sources = sources
        sources.iterations = iterations
        self.iteration = 0
        self.iterations = iterations
        self._optimiser_config = optimiser
        self._ema = optimiser.ema
        if self._ema:
            synthetic.start_average()
        learned: dict[str, dict[str, Tensor]] = {}
        for name, parameter in _learned(synthetic):
            learned.setdefault(name.partition(".")[0], {})[name] = parameter
        stepped = learned.pop(synthetic.pixels)
        for name in sorted(engine.stepped_with_pixels & learned.keys()):
            stepped |= learned.pop(name)
        self._pixel_optimiser = make_pixel_optimiser(
            optimiser, stepped, sources.task.num_classes, synthetic.counts
        )
        # What else is learned, such as an adversary, steps by the engine's rule for it.
        self._auxiliary = {
            name: make_pixel_optimiser(engine.auxiliary_optimisers[name], each, 1)
            for name, each in learned.items()
        }
        self._plateau = Plateau(optimiser.lr, optimiser.patience)
        self.subset = SubsetChoice(synthetic.sizes, size_period)
        self._separable = engine.separable(sources.supply.network)
        self._class_chunk = class_chunk if self._separable else 0
        self._passes = self._own_passes()

    @property
    def parts(self) -> int:
        """Into how many parts of about equal work the loss falls: classes, where it is a sum over them."""
        if self._separable:
            return self.sources.task.num_classes
        return self.engine.parts(self.synthetic)

    def divide(self, ranks: Ranks) -> None:
        """Compute from now on what is this process's among others.

        Raises:
            UserError: the processes cannot share the loss.
        """
        self.sources.ranks = ranks
        self._passes = self._own_passes()

    def _own_passes(self) -> list[Tensor]:
        """Return the classes of each pass.

        Raises:
            UserError: the processes cannot share the loss.
        """
        classes = self._own_classes()
        return list(classes.split(self._class_chunk)) if self._class_chunk else [classes]

    def _own_classes(self) -> Tensor:
        """Return the classes whose loss this process computes: all, where the engine divides it otherwise.

        Raises:
            UserError: the loss cannot be divided over so many processes.
        """
        ranks, count = self.sources.ranks, self.sources.task.num_classes
        classes = torch.arange(count)
        if ranks.count == 1:
            return classes
        if not self.engine.divisible(self.sources.supply.network):
            raise UserError(
                "the batch normalisation of this network couples the images of a batch, so that several "
                "processes cannot share this loss: choose a network without it, or leave torchrun out"
            )
        if not self._separable:
            return classes
        if ranks.count > count:
            raise UserError(
                f"{ranks.count} processes cannot share {count} classes: start at most {count} of them "
                f"(torchrun --nproc-per-node {count})"
            )
        return classes[ranks.part(count)]

    @property
    def classes_at_once(self) -> int:
        """Classes whose graphs are held at once."""
        return len(self._passes[0])

    def begin(self) -> Iterator[tuple[int, int]]:
        """Train networks before the first iteration, a little at a time; yield steps done, and all."""
        return self.sources.begin(self.synthetic) if not self.iteration else iter(())

    def expect(self, iterations: int) -> None:
        """Take a run to have so many iterations, with which schedules of rates and of views end."""
        self.iterations = self.sources.iterations = iterations

    def step(self) -> IterationReport:
        """Take one iteration, whether or not `iterations` have been taken."""
        self.sources.iteration = self.iteration
        cached_before = self._caching
        config = self._optimiser_config
        if config.clamp == "before":
            self._clamp(self.iteration)
        if config.schedule != "constant":
            self._pixel_optimiser.set_lr(config.rate(self.iteration, self.iterations))
        if self.subset.is_due(self.iteration):
            self.sources.update = 0
            self.subset.choose(self._distance)
        totals: dict[str, Tensor] = {}
        stepped = True
        for update in range(self.engine.updates_per_iteration):
            self.sources.update = update
            stepped &= self._take(totals)
        self.sources.advance(self.synthetic)
        if (
            stepped
            and self._plateau.patience
            and self._plateau.update(float(torch.stack(list(totals.values())).sum()))
        ):
            self._pixel_optimiser.set_lr(self._plateau.lr)
        self.engine.revise(self.synthetic, self.sources)
        self.iteration += 1
        if config.clamp == "after":
            self._clamp(self.iteration)
        if self._ema and stepped:
            self.synthetic.update_average(self._ema)
        parameters = _learned(self.synthetic)
        learned = {name: value.detach().clone() for name, value in parameters if value.dim() == 0}
        caching = self._caching - cached_before
        return IterationReport(self.iteration, totals, not stepped, learned, caching)

    @property
    def _optimisers(self) -> list[PixelOptimiser]:
        """That of the images, and those of all else that is learned."""
        return [self._pixel_optimiser, *self._auxiliary.values()]

    @property
    def _caching(self) -> float:
        """Seconds that went into the cache of real images so far."""
        return self.sources.cache.seconds if self.sources.cache else 0.0

    def _clamp(self, iteration: int) -> None:
        """Clamp the pixels if it is their turn."""
        every = self._optimiser_config.clamp_every
        if every and iteration % every == 0:
            self.synthetic.clamp_()

    def _take(self, totals: dict[str, Tensor]) -> bool:
        """Take one step of all that is learned, unless it is discarded, and add its terms to ``totals``."""
        with self._frozen():
            for optimiser in self._optimisers:
                optimiser.zero_grad()
                optimiser.prepare()
        here: dict[str, Tensor] = {}
        shown = {0: "", self.subset.current: "_first"} if self.subset.current else {0: ""}
        for classes, (count, suffix) in itertools.product(self._passes, shown.items()):
            self.sources.classes = classes
            with self.synthetic.first(count):
                terms = self.engine.loss(self.synthetic, self.sources)
            for name, value in terms.items():
                here[name + suffix] = here.get(name + suffix, 0) + value.detach()
            if self.engine.discards(self._summed(terms)):
                _add(here, totals)
                return False
            torch.stack(list(terms.values())).sum().backward()
        self._reduce(here)
        _add(here, totals)
        with self._frozen(), _masked(self.synthetic):
            for optimiser in self._optimisers:
                optimiser.step()
        return True

    def _summed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms of all processes; those at hand where classes are divided, which discards none."""
        if self._separable or self.sources.ranks.count == 1:
            return terms
        summed = {name: value.detach().clone() for name, value in terms.items()}
        self.sources.ranks.sum_(*summed.values())
        return summed

    def _reduce(self, terms: dict[str, Tensor]) -> None:
        """Add up the terms and the gradients of all processes, so that all take the same step."""
        ranks = self.sources.ranks
        if ranks.count == 1:
            return
        learned = [parameter for _, parameter in _learned(self.synthetic)]
        moved = ranks.any(*(parameter.grad is not None for parameter in learned))
        for parameter in itertools.compress(learned, moved):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            ranks.sum_(parameter.grad)
        ranks.sum_(*terms.values())

    @torch.no_grad()
    def _distance(self, size: int) -> float:
        """Return how far the first images of each class are from real ones, in mean features."""
        assert isinstance(self.engine, MatchingEngine)
        total = 0.0
        for classes in self._passes:
            self.sources.classes = classes
            with self.synthetic.first(size):
                total += float(self.engine.feature_distance(self.synthetic, self.sources))
        distance = torch.tensor(total, dtype=torch.float64)
        self.sources.ranks.sum_(distance)
        return float(distance)

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        """Have the optimisers leave frozen images as they are: neither gradient nor momentum moves them."""
        if not self.subset.frozen:
            yield
            return
        pixels = self.synthetic.get_parameter(self.synthetic.pixels)
        rows = self.subset.frozen_rows(self.synthetic)
        if pixels.grad is not None:
            pixels.grad[rows] = 0
        before = pixels.detach()[rows].clone()
        yield
        pixels.detach()[rows] = before

    def state_dict(self) -> dict[str, Tensor]:
        """Return all a resumed loop needs, as named tensors; random draws follow from the seed.

        All processes of a run call this together.
        """
        state = {f"synthetic.{name}": value for name, value in self.synthetic.state_dict().items()}
        state |= {f"supply.{name}": value for name, value in self.sources.supply.state_dict().items()}
        if self.subset.sizes:
            state |= {f"subset.{name}": value for name, value in self.subset.state_dict().items()}
        if clusters := self.sources.clusters:
            chosen = self.sources.ranks.union(clusters.state_dict(torch.cat(self._passes).tolist()))
            state |= {f"clusters.{name}": value for name, value in chosen.items()}
        state |= {f"optimiser.{name}": value for name, value in self._pixel_optimiser.state_dict().items()}
        for group, optimiser in self._auxiliary.items():
            state |= {f"others/{group}.{name}": value for name, value in optimiser.state_dict().items()}
        if self._plateau.patience:
            state |= self._plateau.state_dict()
        return state | {"iteration": torch.tensor(self.iteration)}

    def state_bytes(self) -> int:
        """Return the bytes of a state after the next step."""
        here = sum(each.nbytes for each in self.state_dict().values())
        return here + sum(each.bytes_to_come for each in self._optimisers)

    def optimiser_bytes(self) -> int:
        """Return the bytes of what the optimisers of the images and of all else know after the next step."""
        return sum(each.state_bytes for each in self._optimisers)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict` of a loop of the same configuration."""
        self.synthetic.load_state_dict(_below("synthetic.", state))
        self.sources.load(_below("supply.", state))
        if self.subset.sizes:
            self.subset.load_state_dict(_below("subset.", state))
        if clusters := self.sources.clusters:
            clusters.load_state_dict(_below("clusters.", state))
        self._pixel_optimiser.load_state_dict(_below("optimiser.", state))
        for group, optimiser in self._auxiliary.items():
            optimiser.load_state_dict(_below(f"others/{group}.", state))
        if self._plateau.patience:
            self._plateau.load_state_dict(state)
            self._pixel_optimiser.set_lr(self._plateau.lr)
        self.iteration = int(state["iteration"])


def _add(terms: dict[str, Tensor], totals: dict[str, Tensor]) -> None:
    """Add terms to totals, by name."""
    for name, value in terms.items():
        totals[name] = totals[name] + value if name in totals else value


def _learned(synthetic: SyntheticSet) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that are learned, by name."""
    return ((name, each) for name, each in synthetic.named_parameters() if each.requires_grad)


@contextlib.contextmanager
def _masked(synthetic: SyntheticSet) -> Iterator[None]:
    """Undo, of the step of the pixels that is taken inside, what the mask does not let through.

    Optimisers that scale gradients, such as Adam, would undo a mask on the gradient.
    """
    if synthetic.update_mask is None:
        yield
        return
    pixels = synthetic.get_parameter(synthetic.pixels).detach()
    before = pixels.clone()
    yield
    pixels.copy_(before + synthetic.update_mask * (pixels - before))


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
