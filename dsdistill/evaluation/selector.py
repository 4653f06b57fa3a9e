"""Networks trained briefly on all real images, and the images chosen by their features or scores.

Networks whose training takes long are kept in the cache, where later evaluations on the same data find them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from dsdistill.compute.sgd import sgd
from dsdistill.data.cache import recall, store
from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset
from dsdistill.data.selection import BY_EL2N, BY_FEATURES, el2n
from dsdistill.errors import UserError
from dsdistill.evaluation.execution import Execution
from dsdistill.files import cache_folder
from dsdistill.networks import Network, build_network
from dsdistill.networks.registry import source_digest
from dsdistill.runtime import provenance
from dsdistill.runtime.device import autocast
from dsdistill.seeding import forked, generator


@dataclass(frozen=True)
class SelectorTraining:
    """How a network that chooses images is trained: plain SGD, neither schedule nor augmentation.

    Papers that compare coresets with distillation train such networks to the end. A few epochs suffice to
    tell images apart and cost minutes, not hours.

    Attributes:
        least_steps: few images get more epochs, or their network would hardly have moved.
        networks: EL2N scores are averaged over so many (Paul et al. 2021 take 10, trained for 20 epochs).
            Features are those of the first.
    """

    epochs: int = 3
    least_steps: int = 200
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    networks: int = 3

    def batches(self, images: int) -> int:
        """Return the steps of an epoch on so many images."""
        return -(-images // self.batch_size)

    def epochs_on(self, images: int) -> int:
        """Return the epochs for so many images."""
        return max(self.epochs, -(-self.least_steps // self.batches(images)))


TRAINING = SelectorTraining()
_TIMED_STEPS = 10
_NOTICE_SECONDS = 30.0  # a choice that takes longer is announced
_KEPT_SECONDS = 30.0  # a network whose training takes longer is kept


@dataclass(frozen=True, eq=False)
class Selector:
    """Chooses real images for several baselines at once.

    Attributes:
        network: name of the architecture, that of the protocol's student.
        real: the images to choose from; streamed, so that a memory map stays on disk.
        preprocess: that of the students' images.
        seed: of the networks' weights and batches.
    """

    network: str
    real: RealDataset
    preprocess: Preprocess
    execution: Execution
    seed: int
    training: SelectorTraining = TRAINING

    def steps(self, methods: Iterable[str]) -> int:
        """Return the batches that go through networks to choose by ``methods``, in training and after it."""
        embedding_batches = sum(self.training.batches(members) for members in self.real.counts.tolist())
        return self._networks(methods) * (self._training_steps + embedding_batches)

    def steps_left(self, methods: Iterable[str]) -> int:
        """Return `steps` without those that networks in the cache save."""
        methods = list(methods)
        hits = sum(self._cache_file(index).exists() for index in range(self._networks(methods)))
        return self.steps(methods) - hits * self._training_steps

    @property
    def _training_steps(self) -> int:
        """Of a network."""
        images = len(self.real)
        return self.training.epochs_on(images) * self.training.batches(images)

    def choose(
        self, requests: Mapping[str, tuple[str, Tensor]], tick: Callable[[int, int], None]
    ) -> dict[str, Tensor]:
        """Train the networks that are needed and choose, class by class.

        Args:
            requests: by any key a method of ``BY_FEATURES`` or ``BY_EL2N`` and how many images of each class
                to choose, int64 [K], at most all.
            tick: called with (steps done, steps in all).

        Returns:
            by the same keys positions in ``real``, int64, class-major.

        Raises:
            UserError: the training diverged, or the network cannot take the images.
        """
        methods = [method for method, _ in requests.values()]
        cached = [self._recalled(index) for index in range(self._networks(methods))]
        saved = sum(network is not None for network in cached) * self._training_steps
        advance = self._clock(self.steps(methods), saved, tick)
        networks = [
            self._new(index, advance) if network is None else network for index, network in enumerate(cached)
        ]
        chosen: dict[str, list[Tensor]] = {key: [] for key in requests}
        for label in range(len(self.real.classes)):
            members = self.real.indices_of(label)
            if not len(members):
                continue
            features = [self._embeddings(network, members, advance) for network in networks]
            scores = (
                self._scores(networks, features, label) if not BY_EL2N.keys().isdisjoint(methods) else None
            )
            for key, (method, counts) in requests.items():
                if not (count := int(counts[label])):
                    continue
                if scores is not None and method in BY_EL2N:
                    positions = BY_EL2N[method](scores, count)
                else:
                    positions = BY_FEATURES[method](features[0], count)
                chosen[key].append(members[positions])
        return {key: torch.cat(parts) for key, parts in chosen.items()}

    def _networks(self, methods: Iterable[str]) -> int:
        """Return how many networks ``methods`` need."""
        names = set(methods)
        return 0 if not names else 1 if names.isdisjoint(BY_EL2N) else self.training.networks

    def _clock(self, total: int, saved: int, tick: Callable[[int, int], None]) -> Callable[[], None]:
        """Return a function to call after each step that the cache did not save.

        It notifies once if all of these take long.
        """
        start, done = time.perf_counter(), saved

        def advance() -> None:
            nonlocal done
            done += 1
            tick(done, total)
            if done == saved + _TIMED_STEPS:
                seconds = (time.perf_counter() - start) / _TIMED_STEPS * (total - saved)
                if seconds > _NOTICE_SECONDS:
                    self.execution.notify(
                        f"choosing real images for the baselines: {self.network} is trained briefly on "
                        f"{self.real.name}; all of it takes up to {round(seconds / 60 + 0.5)} min"
                    )

        return advance

    def _recalled(self, index: int) -> Network | None:
        """Return the network of the cache in evaluation mode; None without one that fits."""
        if (stored := recall(self._cache_file(index), self.execution.notify)) is None:
            return None
        network = self._built(index)
        try:
            network.load_state_dict(load_tensors(stored))
        except (RuntimeError, SafetensorError):  # as one's own network has since got other layers
            self.execution.notify(
                f"{self.network} is not as the cache has it, so it is trained again to choose images"
            )
            return None
        return network.eval()

    def _new(self, index: int, advance: Callable[[], None]) -> Network:
        """Train a network, and put it into the cache if that took long."""
        start = time.perf_counter()
        network = self._trained(index, advance)
        if time.perf_counter() - start >= _KEPT_SECONDS:
            # A clone of each, because weights that are tied share memory.
            weights = {name: value.cpu().clone().contiguous() for name, value in network.state_dict().items()}
            try:
                store(self._cache_file(index), save_tensors(weights))
            except UserError as error:
                self.execution.notify(f"the network that chooses real images is not kept for later: {error}")
        return network

    def _cache_file(self, index: int) -> Path:
        """Return the file of the cache. Its name says all that the weights depend on, rounding aside."""
        execution, packages = self.execution, provenance.package_versions()
        parts = [provenance.code_digest(), json.dumps(packages, sort_keys=True)]
        parts += [execution.device.type, execution.precision, str(self.training), str(self.seed), str(index)]
        parts += [self.network, source_digest([self.network]), self.real.fingerprint, self.preprocess.kind]
        digest = hashlib.sha256("\0".join(parts).encode())
        for name, value in sorted(self.preprocess.state().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return cache_folder() / "selectors" / f"{digest.hexdigest()[:32]}.safetensors"

    def _built(self, index: int) -> Network:
        _, channels, size, _ = self.real.images.shape
        with forked(self.seed, "selector", index):
            network = build_network(self.network, channels, size, len(self.real.classes))
        return network.to(self.execution.device)

    def _trained(self, index: int, advance: Callable[[], None]) -> Network:
        training, images, device = self.training, len(self.real), self.execution.device
        network = self._built(index)
        optimiser = sgd(network, training)
        with forked(self.seed, "selector-noise", index):  # for dropout
            for epoch in range(training.epochs_on(images)):
                order = torch.randperm(images, generator=generator(self.seed, "selector-order", index, epoch))
                for rows in order.split(training.batch_size):
                    labels = self.real.labels[rows].to(device)
                    with autocast(device, self.execution.precision):
                        loss = F.cross_entropy(network(self._images(rows)).float(), labels)
                    loss.backward()
                    optimiser.step()
                    optimiser.zero_grad()
                    advance()
        if not loss.isfinite():
            raise UserError(f"{self.network} diverged when trained to choose real images; choose at random")
        return network.eval()

    @torch.inference_mode()
    def _embeddings(self, network: Network, rows: Tensor, advance: Callable[[], None]) -> Tensor:
        """Return the features of images, float32 [n, D] on the device."""
        parts = []
        for part in rows.split(self.training.batch_size):
            with autocast(self.execution.device, self.execution.precision):
                parts.append(network.embed(self._images(part)).float())
            advance()
        return torch.cat(parts)

    @torch.inference_mode()
    def _scores(self, networks: list[Network], features: list[Tensor], label: int) -> Tensor:
        """Return the EL2N scores of a class, averaged over the networks, [n]."""
        logits = [network.classifier(embedded) for network, embedded in zip(networks, features, strict=True)]
        return el2n(torch.stack(logits), torch.full((len(features[0]),), label, device=features[0].device))

    def _images(self, rows: Tensor) -> Tensor:
        return self.preprocess(self.real.unit(rows).to(self.execution.device))
