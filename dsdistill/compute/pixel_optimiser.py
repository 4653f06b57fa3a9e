"""Optimisers of learned parameters: one step for all classes, or one step per class.

IDC, IDM and NCFM store all images in one parameter and take one optimiser step per class. The gradients of
the other classes are then zero, not absent, so every step changes every image: momentum continues, Adam's
averages and counter advance, weights decay. One step per iteration at the same learning rate is a different
method.

The loss of a class reads its own images only. `PerClassOptimiser` therefore evaluates all losses at once. It
takes the zero-gradient steps before a class's own step beforehand, and those after it afterwards.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.lamb import Lamb
from dsdistill.errors import UserError


class PixelOptimiser(ABC):
    """Updates parameters in place, pass by pass.

    A pass is `zero_grad`, `prepare`, the losses and their gradients, `step`. `state_dict` is complete between
    passes.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = dict(parameters)

    @property
    def bytes_to_come(self) -> int:
        """Bytes of the state that the first step makes, before that step."""
        return 0

    @property
    def state_bytes(self) -> int:
        """Bytes of the state after the next step."""
        return self.bytes_to_come + sum(each.nbytes for each in self.state_dict().values())

    def prepare(self) -> None:  # noqa: B027 - a joint step needs no preparation
        """Move the parameters to the point where the losses of this pass are evaluated."""

    @abstractmethod
    def step(self) -> None:
        """Step with the gradients in ``.grad``."""

    @abstractmethod
    def set_lr(self, lr: float) -> None:
        """Use another learning rate from now on."""

    def zero_grad(self) -> None:
        """Delete the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Return all a resumed run needs besides the parameters; names are ``parameter.slot``."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict` of an optimiser with the same config."""


def make_pixel_optimiser(
    config: OptimiserConfig,
    parameters: Mapping[str, Tensor],
    classes: int,
    counts: Sequence[int] | None = None,
) -> PixelOptimiser:
    """Return the optimiser of some parameters.

    Args:
        config: the optimiser and its stepping rule.
        parameters: leaves, by name, on their device. Per-class steps need them contiguous and class-major.
        classes: number of classes K.
        counts: rows of each class; equally many by default.

    Raises:
        UserError: if steps are per class, and the rows of a parameter do not divide among the classes.
    """
    if config.updates == "joint":
        return JointOptimiser(config, parameters)
    for name, parameter in parameters.items():
        fits = parameter.dim() and (sum(counts) == len(parameter) if counts else not len(parameter) % classes)
        if not fits:
            raise UserError(
                f"{name!r} of shape {tuple(parameter.shape)} does not divide among {classes} classes; "
                "use optimiser.updates=joint"
            )
    return PerClassOptimiser(config, parameters, classes, counts)


class Plateau:
    """Halves a learning rate when a loss stops decreasing, like torch's ReduceLROnPlateau by default.

    A loss is lower if it is so by a ten-thousandth. Patience restarts after every halving.
    """

    def __init__(self, lr: float, patience: int) -> None:
        self.lr, self.patience = lr, patience
        self._best, self._waited = math.inf, 0

    def update(self, loss: float) -> bool:
        """Record the loss of an iteration; return whether the learning rate was halved."""
        self._waited += 1
        if loss < self._best * (1 - 1e-4):
            self._best, self._waited = loss, 0
        if self._waited <= self.patience:
            return False
        self.lr, self._waited = self.lr / 2, 0
        return True

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run needs."""
        return {"plateau": torch.tensor([self.lr, self._best, self._waited], dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        self.lr, self._best, waited = state["plateau"].tolist()
        self._waited = int(waited)


class JointOptimiser(PixelOptimiser):
    """One step of torch's SGD or AdamW, or of LAMB, for all parameters."""

    def __init__(self, config: OptimiserConfig, parameters: Mapping[str, Tensor]) -> None:
        super().__init__(parameters)
        tensors, decay = list(self.parameters.values()), config.weight_decay
        self._optimiser: torch.optim.Optimizer
        self._slots = bool(config.momentum) if config.kind == "sgd" else 2
        if config.kind == "sgd":
            self._optimiser = torch.optim.SGD(tensors, config.lr, config.momentum, weight_decay=decay)
        elif config.kind == "lamb":
            self._optimiser = Lamb(tensors, config.lr, config.betas, config.eps, decay)
        else:
            self._optimiser = torch.optim.AdamW(
                tensors, config.lr, config.betas, config.eps, weight_decay=decay, fused=True
            )

    def step(self) -> None:
        self._optimiser.step()

    def set_lr(self, lr: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = lr

    @property
    def bytes_to_come(self) -> int:
        """Bytes of the state that the first step makes; 0 after it."""
        if self._optimiser.state:
            return 0
        return self._slots * sum(each.nbytes for each in self.parameters.values())

    def state_dict(self) -> dict[str, Tensor]:
        names = list(self.parameters)
        return {
            f"{names[index]}.{slot}": torch.as_tensor(value)
            for index, slots in self._optimiser.state_dict()["state"].items()
            for slot, value in slots.items()
            if value is not None
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        names = list(self.parameters)
        slots: dict[int, dict[str, Any]] = {}
        for key, value in state.items():
            name, _, slot = key.rpartition(".")
            slots.setdefault(names.index(name), {})[slot] = value.clone()  # torch updates it in place
        self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": slots})


class PerClassOptimiser(PixelOptimiser):
    """One step per class and pass, in class order, with one evaluation of the losses.

    Equal, up to rounding, to K times backward and step of torch's SGD or AdamW on parameters that all classes
    share, if each loss reads its own class only. A missing gradient counts as zero.
    """

    def __init__(
        self,
        config: OptimiserConfig,
        parameters: Mapping[str, Tensor],
        classes: int,
        counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__(parameters)
        rule = {"sgd": _SGD, "adamw": _AdamW}[config.kind]
        uneven = counts is not None and len(set(counts)) > 1
        rows = tuple(counts) if counts and uneven else (1,) * classes  # of equal classes, each is one row
        self._rules = {name: rule(config, parameter, rows) for name, parameter in self.parameters.items()}
        self._classes = classes
        self._steps = 0

    @torch.no_grad()
    def prepare(self) -> None:
        """Take, for class c, the c steps of the classes before it."""
        for rule in self._rules.values():
            rule.zero_grad_steps(self._steps, before=True)

    @torch.no_grad()
    def step(self) -> None:
        """Take every class's own step, then, for class c, the K - 1 - c of the classes after it."""
        for rule in self._rules.values():
            rule.descend(self._steps)
            rule.zero_grad_steps(self._steps, before=False)
        self._steps += self._classes

    def set_lr(self, lr: float) -> None:
        for rule in self._rules.values():
            rule.configure(dataclasses.replace(rule.config, lr=lr))

    def state_dict(self) -> dict[str, Tensor]:
        slots = {
            f"{name}.{slot}": value
            for name, rule in self._rules.items()
            for slot, value in rule.slots.items()
        }
        return slots | {"taken": torch.tensor(self._steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, rule in self._rules.items():
            for slot, value in rule.slots.items():
                value.copy_(state[f"{name}.{slot}"])
        self._steps = int(state["taken"])


class _Rule(ABC):
    """An optimiser over one parameter as rows [R, D], some of each class, that need not be at the same step.

    Attributes:
        slots: what the optimiser remembers, each [R, D], zero at first.
        classes: number of classes K.
        owner: int64 [R], the class of each row, ascending; ranks: the same as a column [R, 1] of floats.
    """

    names: ClassVar[tuple[str, ...]]

    def __init__(self, config: OptimiserConfig, parameter: Tensor, rows: Sequence[int]) -> None:
        """Prepare for a parameter of which each class has so many ``rows``."""
        self.parameter, self.classes = parameter, len(rows)
        self.owner = torch.arange(len(rows)).repeat_interleave(torch.tensor(rows)).to(parameter.device)
        self.ranks = self.owner.to(parameter.dtype)[:, None]
        self._first = [0, *itertools.accumulate(rows)]
        self.slots = {name: torch.zeros_like(self.rows) for name in self.names}
        self.configure(config)

    def configure(self, config: OptimiserConfig) -> None:
        """Use a config from now on."""
        self.config = config

    @property
    def rows(self) -> Tensor:
        """The values of the parameter, a view [R, D]."""
        return self.parameter.detach().view(len(self.ranks), -1)

    @property
    def gradient(self) -> Tensor:
        """The gradient as rows."""
        gradient = self.parameter.grad
        return torch.zeros_like(self.rows) if gradient is None else gradient.reshape(len(self.ranks), -1)

    @property
    def after(self) -> Tensor:
        """Steps of the classes after each row's own, K - 1 - c, as a column [R, 1]."""
        return self.classes - 1 - self.ranks

    def rows_from(self, label: int) -> slice:
        """Return the rows of a class and of those after it."""
        return slice(self._first[label], None)

    def rows_below(self, label: int) -> slice:
        """Return the rows of the classes before one."""
        return slice(0, self._first[label])

    @abstractmethod
    def zero_grad_steps(self, steps_before: int, before: bool) -> None:
        """Take the zero-gradient steps: for a row of class c, c steps before its own, or K - 1 - c after it.

        Args:
            steps_before: steps of every row before this pass.
            before: whether these are the steps before the rows' own steps, or those after.
        """

    @abstractmethod
    def descend(self, steps_before: int) -> None:
        """Take the step with the gradient: for a row of class c, step number ``steps_before`` + c + 1."""


class _SGD(_Rule):
    """torch.optim.SGD: v = μ v + g + λ p, then p = p - lr v.

    With g = 0 this is linear in (p, v), so m steps are the m-th power of a 2 x 2 matrix.
    """

    names = ("momentum",)

    def configure(self, config: OptimiserConfig) -> None:
        super().configure(config)
        lr, momentum, decay = config.lr, config.momentum, config.weight_decay
        once = torch.tensor([[1 - lr * decay, -lr * momentum], [decay, momentum]], dtype=torch.float64)
        powers = torch.stack([torch.linalg.matrix_power(once, m) for m in range(self.classes)])
        self._powers = powers.to(self.parameter)  # [K, 2, 2]

    def zero_grad_steps(self, steps_before: int, before: bool) -> None:
        rows, momentum = self.rows, self.slots["momentum"]
        powers = (self._powers if before else self._powers.flip(0))[self.owner][..., None]
        updated = powers[:, 0, 0] * rows + powers[:, 0, 1] * momentum
        momentum.mul_(powers[:, 1, 1]).addcmul_(powers[:, 1, 0], rows)
        rows.copy_(updated)

    def descend(self, steps_before: int) -> None:
        rows, momentum = self.rows, self.slots["momentum"]
        momentum.mul_(self.config.momentum).add_(self.gradient).add_(rows, alpha=self.config.weight_decay)
        rows.sub_(momentum, alpha=self.config.lr)


class _AdamW(_Rule):
    """torch.optim.AdamW. With a zero gradient both averages only shrink, by β₁ and β₂ per step."""

    names = ("exp_avg", "exp_avg_sq")

    def zero_grad_steps(self, steps_before: int, before: bool) -> None:
        average, square = self.slots["exp_avg"], self.slots["exp_avg_sq"]
        root = square.sqrt()
        done = steps_before + (0 * self.ranks if before else self.ranks + 1)
        for m in range(1, self.classes):  # the m-th step of all rows that have one
            some = self.rows_from(m) if before else self.rows_below(self.classes - m)
            self._move(some, done[some] + m, root[some], decays=m)
        counts = self.ranks if before else self.after
        average.mul_(self.config.betas[0] ** counts)
        square.mul_(self.config.betas[1] ** counts)

    def descend(self, steps_before: int) -> None:
        average, square, gradient = self.slots["exp_avg"], self.slots["exp_avg_sq"], self.gradient
        beta1, beta2 = self.config.betas
        average.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        self._move(slice(None), steps_before + self.ranks + 1, square.sqrt(), decays=0)

    def _move(self, some: slice, steps: Tensor, root: Tensor, decays: int) -> None:
        """Decay and move some rows [k, D].

        Args:
            some: the rows.
            steps: column [k, 1] of their step numbers.
            root: square roots [k, D] of their average squared gradients ``decays`` steps ago.
            decays: number of steps since then; both averages shrink at each.
        """
        lr, (beta1, beta2) = self.config.lr, self.config.betas
        first = _correction(beta1, steps)
        scale = first / _correction(beta2, steps).sqrt() * beta2 ** (decays / 2)
        denominator = torch.addcmul(self.config.eps * first, root, scale)
        rows = self.rows[some].mul_(1 - lr * self.config.weight_decay)
        rows.addcdiv_(self.slots["exp_avg"][some], denominator, value=-lr * beta1**decays)


def _correction(beta: float, steps: Tensor) -> Tensor:
    """Return 1 - β^steps, precise in float32 as well."""
    return -torch.expm1(steps * (math.log(beta) if beta else -math.inf))
