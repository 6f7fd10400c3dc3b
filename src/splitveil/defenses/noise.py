"""Clipped Gaussian noise on the features (He et al. 2020, IEEE IoT-J: noise on z beats noise on x)."""

from typing import ClassVar

import torch
from torch import Tensor

from splitveil.defenses.base import Defense
from splitveil.errors import InputError
from splitveil.registry import Value


class GaussianNoise(Defense):
    """Gaussian noise on features whose norm is clipped first. This is noise, not differential privacy.

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

    def spread(self, z: Tensor) -> Tensor:
        return self._strength(z).expand(z.shape[1:])

    def options(self) -> dict[str, Value]:
        return {"sigma": self.sigma, "clip": self.clip}

    def _strength(self, z: Tensor) -> Tensor:
        strength: Tensor = self.sigma * self.radius / z[0].numel() ** 0.5
        return strength
