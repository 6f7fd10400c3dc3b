"""Clipped noise on the features, Gaussian or Laplace (He et al. 2020, IEEE IoT-J: noise on z beats noise on x)."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.defenses.base import Defense
from splitveil.lab.law import Law, Sharp
from splitveil.lab.metrics.bounds.accounting import gaussian_epsilon, laplace_epsilon
from splitveil.wire.codecs import Codec

SMALLEST = 1e-7
"""Probability of a tail beyond which no draw lies; the graph on the device computes it in float32."""


class GaussianNoise(Defense):
    """Gaussian noise on features whose norm is clipped first. `epsilon` says what that is as local privacy: little.

    ``z * min(1, R / ||z||_2) + sigma * R / sqrt(elements) * noise`` with R = clip times the median norm of features of
    training images. Both knobs are relative, so a model that scales z gains nothing. (The paper neither clips nor
    scales; this is our reading of what makes its noise comparable between cuts.)

    Args:
        sigma: noise-to-signal ratio at the clip: 1 is noise as strong as the features.
        clip: bound of the L2 norm of one sample's z, in median norms.
    """

    name: ClassVar[str] = "noise"
    stochastic: ClassVar[bool] = True
    radius: Tensor

    def __init__(self, *, sigma: float = 0.5, clip: float = 1.0) -> None:
        super().__init__()
        if not (sigma >= 0 and clip > 0):
            raise InputError(f"expected sigma >= 0 and clip > 0, got sigma={sigma}, clip={clip}; use noise:sigma=0.5.")
        self.sigma, self.clip = float(sigma), float(clip)
        self.register_buffer("radius", torch.tensor(0.0))

    def calibrate(self, z: Tensor) -> None:
        self.radius.copy_(self.clip * z.flatten(1).norm(dim=1).median())

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        norm = z.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, *[1] * (z.ndim - 1))
        z = z * (self.radius / norm).clamp(max=1.0)
        return z if noise is None else z + self._strength(z) * noise

    def spread(self, z: Tensor) -> Tensor | None:
        return self._strength(z).expand(z.shape[1:])

    def epsilon(self, cut: tuple[int, ...], *, delta: float = 1e-5) -> float:
        """Local differential privacy of one answer, in nats; infinite where there is no noise.

        Clipping makes it so: any two inputs whatsoever are neighbours, and their features are at most 2 R apart, so
        that the analytic Gaussian mechanism applies; codecs after it cost nothing. What it leaves out: R (and sigma
        where it is solved for) and the edge's weights are constants learned from training images, whose privacy is
        another matter; k answers to one input are worth sqrt(k) times the sensitivity; it is the ideal noise's.

        Args:
            cut: shape of one sample's z.
            delta: chance that the promise fails.
        """
        return gaussian_epsilon(2.0, self._ratio() / math.prod(cut) ** 0.5, delta)

    def _ratio(self) -> float:
        """Size of the noise in units of the clip: the norm that its standard deviations have together."""
        return self.sigma

    def _strength(self, z: Tensor) -> Tensor:
        strength: Tensor = self.sigma * self.radius / z[0].numel() ** 0.5
        return strength


class LaplaceNoise(GaussianNoise):
    """The same with Laplace noise of the same standard deviation: heavier tails, sharper peak.

    The standard normal that a request draws is mapped through its distribution function; arguments as for ``noise``.
    """

    name: ClassVar[str] = "laplace"

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            return super().apply_noise(z, None)
        tail = torch.special.erfc(noise.abs() / math.sqrt(2)).clamp_min(SMALLEST)
        return super().apply_noise(z, -noise.sign() * tail.log() / math.sqrt(2))

    def spread(self, z: Tensor) -> Tensor | None:
        return None

    def deviation(self, z: Tensor) -> Tensor | None:
        return super().spread(z)

    def law(self, like: Tensor, codec: Codec | None = None, times: int = 1) -> Law | None:
        return Sharp(self.mean, codec, deviation=self._strength, times=times)

    def epsilon(self, cut: tuple[int, ...], *, delta: float = 0.0) -> float:
        """Local differential privacy of one answer; delta is 0, whatever is given.

        Two clipped features are at most 2 R sqrt(elements) apart in L1. It is the ideal noise's: the device's ends at
        `SMALLEST`, beyond which there is no promise.
        """
        elements = math.prod(cut)
        return laplace_epsilon(2.0 * elements**0.5, self._ratio() / (2 * elements) ** 0.5)


def privacy_words(defense: Defense, cut: tuple[int, ...], *, delta: float = 1e-5) -> str:
    """What a defence is in terms of differential privacy, in one line for cards and consoles.

    Args:
        defense: any; only clipped noise of a known law is accounted for.
        cut: shape of one sample's z.
        delta: of the Gaussian mechanism; Laplace noise needs none.
    """
    if not isinstance(defense, GaussianNoise):
        return "no differential privacy: nothing bounds what one input may change, or the noise is of another kind"
    delta = 0.0 if isinstance(defense, LaplaceNoise) else delta
    epsilon = defense.epsilon(cut, delta=delta)
    if math.isinf(epsilon):
        return "no differential privacy: no noise is added"
    return (
        f"local DP of one answer: epsilon = {epsilon:.3g}, delta = {delta:.3g}, any two inputs as neighbours, ideal "
        "noise; clip and edge are constants from training images"
    )
