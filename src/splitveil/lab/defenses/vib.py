"""The variational information bottleneck on features: MID (Wang et al. 2021), after Alemi et al. 2017."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Batch, Defense

QUIET = 5.0
"""Subtracted before the softplus: a new bottleneck adds hardly any noise."""


class VariationalBottleneck(Defense):
    """``z = mean(h) + softplus(s(h) - 5) * noise`` with a price on the information in z.

    Mean and s are linear in the channels of each position, the mean begins as the identity. The penalty is `beta` times
    the KL divergence from the standard normal, averaged over elements so that one beta serves cuts of any size (our
    reading; MID sums). The noise depends on the input, so that no dFIL certificate covers it.

    Args:
        beta: price of a nat in each element.
    """

    name: ClassVar[str] = "vib"
    stochastic: ClassVar[bool] = True

    def __init__(self, *, beta: float = 0.01) -> None:
        super().__init__()
        if beta < 0:
            raise InputError(f"expected beta of at least 0, got {beta}; use vib:beta=0.01.")
        self.beta = float(beta)
        self.linear: nn.Linear | nn.Conv2d | None = None

    def install(self, split: Split) -> Split:
        shape = split.cut.shape
        channels = shape[-1] if len(shape) == 2 else shape[0]
        self.linear = nn.Conv2d(channels, 2 * channels, 1) if len(shape) == 3 else nn.Linear(channels, 2 * channels)
        with torch.no_grad():
            identity = torch.cat([torch.eye(channels), torch.zeros(channels, channels)])
            self.linear.weight.copy_(identity.reshape(self.linear.weight.shape))
            nn.init.zeros_(self.linear.bias)  # type: ignore[arg-type]
        return split

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        mean, deviation = self.moments(z)
        return mean if noise is None else mean + deviation * noise

    def deviation(self, z: Tensor) -> Tensor | None:
        return self.moments(z)[1]

    def moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z given h: (N, *cut) each."""
        if self.linear is None:
            raise InputError("the bottleneck has no weights yet; install it in a split first.")
        mean, s = self.linear(h).chunk(2, 1 if h.ndim == 4 else -1)
        return mean, F.softplus(s - QUIET)

    def penalty(self, batch: Batch) -> Tensor:
        mean, deviation = self.moments(batch.h)
        variance = deviation.square()
        return self.beta * 0.5 * (mean.square() + variance - 1 - variance.log()).mean()
