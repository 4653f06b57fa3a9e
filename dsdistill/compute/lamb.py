"""LAMB (You et al., *Large Batch Optimization for Deep Learning*, ICLR 2020): Adam with a trust ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """LAMB, with one trust ratio for each whole tensor, as optax has it.

        u = m̂ / (√v̂ + ε) + decay · p,    p ← p - lr · r · u,    r = ‖p‖ / ‖u‖

    where m̂ and v̂ are Adam's averages, corrected for their start; r is 1 where a norm is 0. All images are one
    tensor: a ratio for each image would be another optimiser.

    >>> parameter = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> parameter.grad = torch.tensor([1.0, 1.0])
    >>> Lamb([parameter], lr=0.1).step()
    >>> parameter.data  # a step of a tenth of the parameter's length
    tensor([2.6464, 3.6464])
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient; ``closure`` is for torch's interface and not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
        state["step"] += 1
        step, average, square = int(state["step"]), state["exp_avg"], state["exp_avg_sq"]
        average.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        update = (average / (1 - beta1**step)).div_(denominator)
        if group["weight_decay"]:
            update.add_(parameter, alpha=group["weight_decay"])
        norms = parameter.norm(), update.norm()
        ratio = torch.where((norms[0] > 0) & (norms[1] > 0), norms[0] / norms[1], 1.0)
        parameter.sub_(group["lr"] * ratio * update)
