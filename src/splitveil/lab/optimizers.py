"""What moves weights: AdamW, SGD with Nesterov's momentum, Muon; and `Average`, a running mean of what they reach."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.registry import nearest

OPTIMIZERS = ("adamw", "adamw-fused", "sgd", "muon")
"""AdamW in torch's plain form; in its fused form, which rounds otherwise; and two with momentum."""
STEPS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
"""Of Newton and Schulz's iteration, as Jordan et al. tuned it: singular values end between 0.7 and 1.2."""
PLAIN = 0.02
"""AdamW's rate over Muon's, for what is no kernel."""
BETAS, TINY = (0.9, 0.999), 1e-8
"""Of AdamW within Muon, torch's usual."""
EARLY = 10
"""Steps over which an average reaches back no further than it has come."""


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How weights move.

    Args:
        optimizer: one of `OPTIMIZERS`.
        momentum: of SGD and Muon.
        weight_decay: decoupled; SGD's is part of the gradient. On weights of two dimensions or more only.
        average: how much of the running mean of the weights each step keeps; 0 for none.

    Raises:
        UnknownNameError: no such optimizer.
        InputError: a number out of range.
    """

    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.0
    average: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError(
                f"unknown optimizer {self.optimizer!r}.{nearest(self.optimizer, OPTIMIZERS)} "
                f"Known: {', '.join(OPTIMIZERS)}."
            )
        if not (0 <= self.momentum < 1 and 0 <= self.average < 1 and 0 <= self.weight_decay < math.inf):
            raise InputError(
                f"expected momentum and average in [0, 1) and a weight decay of at least 0, got {self.momentum}, "
                f"{self.average} and {self.weight_decay}; use momentum=0.9."
            )

    def over(self, trained: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """The optimizer of these parameters. lr: peak rate."""
        trained = list(trained)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if self.optimizer == "sgd":
            nesterov = self.momentum > 0
            return torch.optim.SGD(groups, lr=lr, momentum=self.momentum, nesterov=nesterov)
        if self.optimizer == "muon":
            return Muon(trained, lr=lr, momentum=self.momentum, weight_decay=self.weight_decay)
        return torch.optim.AdamW(groups, lr=lr, fused=self.optimizer == "adamw-fused")


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, for kernels of convolutions; AdamW at `PLAIN` of the rate for all else.

    Each step moves a kernel, as a matrix of one row an output, by the nearest matrix with equal singular values (Jordan
    et al. 2024, "Muon"): no direction is drowned by the few that dominate a gradient. The product chain is bf16, as
    theirs; a tall matrix steps by the root of its sides' ratio more.

    Args:
        trained: parameters; those of three dimensions or more are kernels.
        lr: of kernels.
        momentum: of kernels, Nesterov's.
        weight_decay: decoupled, on weights of two dimensions or more.
    """

    def __init__(self, trained: list[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> None:
        kernels, matrices = [p for p in trained if p.ndim > 2], [p for p in trained if p.ndim == 2]
        groups = [
            {"params": kernels, "lr": lr, "weight_decay": weight_decay, "kernels": True},
            {"params": matrices, "lr": PLAIN * lr, "weight_decay": weight_decay, "kernels": False},
            {"params": [p for p in trained if p.ndim < 2], "lr": PLAIN * lr, "weight_decay": 0.0, "kernels": False},
        ]
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                self._move(parameter, group, self.state[parameter])
        return loss

    @staticmethod
    def _move(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        gradient = cast(Tensor, parameter.grad)
        if group["kernels"]:
            mean = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
            mean.mul_(group["momentum"]).add_(gradient)
            ahead = gradient.add(mean, alpha=group["momentum"]).flatten(1)
            longer = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
            parameter.add_(orthogonal(ahead).view_as(parameter), alpha=-group["lr"] * longer)
            return
        step = state.setdefault("step", torch.zeros(()))
        mean = state.setdefault("exp_avg", torch.zeros_like(parameter))
        square = state.setdefault("exp_avg_sq", torch.zeros_like(parameter))
        step += 1
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        far = (square / (1 - BETAS[1] ** step.item())).sqrt_().add_(TINY)
        parameter.addcdiv_(mean, far, value=-group["lr"] / (1 - BETAS[0] ** step.item()))


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly U V^T of ``matrix = U S V^T``, by Newton and Schulz's iteration. (R, C) -> (R, C), float32."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = (matrix if wide else matrix.T).bfloat16()
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x if wide else x.T).float()


class Average:
    """A running mean of trained weights and of what normalisation measures, kept beside them.

    Each step keeps `decay` of it, less in the first steps, which it would otherwise take from the random start.

    Args:
        module: whose trained parameters and running statistics are averaged.
        decay: below 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        norms = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
        self.live: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if p.requires_grad} | {
            f"{n}.{own}": b for n, m in norms if m.training for own, b in m.named_buffers() if b.is_floating_point()
        }
        self.mean = {name: tensor.detach().clone() for name, tensor in self.live.items()}

    @torch.no_grad()
    def step(self) -> None:
        """After each step of the optimizer."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + EARLY))
        for name, tensor in self.live.items():
            self.mean[name].lerp_(tensor, share)

    def resume(self, mean: dict[str, Tensor], steps: int) -> None:
        """Go on from what a checkpoint kept."""
        self.steps = steps
        for name, tensor in self.mean.items():
            tensor.copy_(mean[name])

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """The mean in the module while the context lasts."""
        self.swap()
        yield
        self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """The mean where the weights were and the other way round."""
        for name, tensor in self.live.items():
            kept = tensor.detach().clone()
            tensor.copy_(self.mean[name])
            self.mean[name].copy_(kept)
