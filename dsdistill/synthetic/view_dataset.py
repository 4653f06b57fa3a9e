"""Stored views as a torch data set whose items are whole batches."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset

from dsdistill.errors import UserError
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.views import Views


class ViewDataset(Dataset[tuple[Tensor, Tensor]]):
    """The stored views of a distilled set: augmented, mixed batches, each with a teacher's answer to it.

    >>> views = dsdistill.label("set.h5", "views.h5", teachers="pool.h5", views=3, batch_size=4)
    >>> dataset = dsdistill.load("views.h5", views=True)
    >>> images, logits = dataset[0]
    >>> len(dataset), images.shape, logits.shape
    (9, torch.Size([4, 1, 8, 8]), torch.Size([4, 10]))

    An item is a whole batch: images float32 [B,C,S,S] in network space, as the teacher saw them, and its
    logits float32 [B,K]. A ``DataLoader`` takes it with ``batch_size=None``, any number of workers, and
    ``shuffle`` or not: batches follow one another, epoch after epoch. All is in memory: no file is open.

    Attributes:
        data: the set itself, decoded, in network space.
        views: which images each batch holds, and how they are augmented.

    Raises:
        UserError: the set has no views, or they store two distances in place of logits.
    """

    def __init__(self, distilled: DistilledSet) -> None:
        if distilled.views is None:
            raise UserError(
                "the set has no views; dsdistill label --views N stores some, and without views=True the set "
                "is loaded image by image"
            )
        if distilled.views.answers.encoding == "distances":
            raise UserError(
                "the views store two distances in place of logits, which only the loss dbr takes: evaluate "
                "the set with protocol nrr-dd, or label it with another encoding"
            )
        self.data = DistilledDataset(distilled)
        self.views: Views = distilled.views

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return a batch and the logits of it.

        Raises:
            IndexError: there is no such batch.
        """
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"there is no batch {number}: the set holds {count}")
        number %= count
        images = self.views.batch(number).images(self.data.images)
        return images, self.views.answers[self.views.slice(number)]
