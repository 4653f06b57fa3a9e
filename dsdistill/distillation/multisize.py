"""Which first images of each class are matched beside all of them, so that they are a good set themselves.

MDC (He et al., *Multisize Dataset Condensation*, ICLR 2024) minimises the loss of all images plus that of the
first k of each class. Every so many iterations, k becomes the size whose features have changed most against
those of real images since the last time: the most learnable subset. A size that had its turn is finished. The
images of the largest finished size below k are frozen, so that a larger subset does not undo a smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dsdistill.synthetic.set import SyntheticSet


class SubsetChoice:
    """The size that is matched beside the whole set, and the images that are frozen meanwhile.

    Attributes:
        sizes: those to choose from: all but the whole set.
        current: the one that is chosen; 0 where there is none to choose.
        frozen: first images of each class that do not change, 0 for none.
    """

    def __init__(self, sizes: tuple[int, ...], period: int) -> None:
        """Begin before the first choice.

        Args:
            sizes: ascending, the last the whole set.
            period: iterations between choices.
        """
        self.sizes = sizes[:-1]
        self._period = period
        self._position = -1
        self._finished = [False] * len(self.sizes)
        self._distances: list[float] = []

    @property
    def current(self) -> int:
        return self.sizes[self._position] if self._position >= 0 else 0

    @property
    def frozen(self) -> int:
        below = zip(self.sizes, self._finished[: max(0, self._position)], strict=False)
        return max((size for size, finished in below if finished), default=0)

    def is_due(self, iteration: int) -> bool:
        """Whether a size is chosen before an iteration: the first of all, and the last of each period."""
        return bool(self.sizes) and (iteration == 0 or (iteration + 1) % self._period == 0)

    def choose(self, distance: Callable[[int], float]) -> None:
        """Choose the size whose distance has changed most since the last choice; at first the smallest.

        Args:
            distance: of the first n images of each class from real ones.
        """
        distances = [distance(size) for size in self.sizes]
        if self._position >= 0:
            self._finished[self._position] = True
        changes = [abs(now - then) for now, then in zip(distances, self._distances, strict=False)]
        self._position = changes.index(max(changes)) if changes else 0
        self._distances = distances

    def frozen_rows(self, synthetic: SyntheticSet) -> Tensor:
        """Return which stored images do not change, bool [N], on their device."""
        within = torch.cat([torch.arange(count) for count in synthetic.counts])
        return (within < self.frozen).to(synthetic.images.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run needs."""
        return {
            "position": torch.tensor(self._position),
            "finished": torch.tensor(self._finished, dtype=torch.bool),
            "distances": torch.tensor(self._distances, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        self._position = int(state["position"])
        self._finished = state["finished"].tolist()
        self._distances = state["distances"].tolist()
