"""`Trust`: weighs the spatial frequencies of a guess by how far each is right on images whose truth is known."""

from dataclasses import dataclass

import torch
from torch import Tensor

EDGES = (0.02, 0.05, 0.1, 0.17, 0.26, 0.36)
"""Between bands of spatial frequency, in cycles a pixel."""
MOST = 1.5
"""A guess may be too faint, too, but is not blown up beyond this."""


@dataclass(frozen=True, slots=True)
class Trust:
    """A Wiener filter about the mean image (our addition): what a guess invents is faded, what it finds stays.

    Of each band of frequencies the share is kept that makes the squared error least on images whose truth is known. A
    guess that is worth nothing becomes the mean image, so that an attack cannot lose to that floor for being sure of
    itself.

    Attributes:
        mean: (C, H, W), the mean image.
        gains: (H, W // 2 + 1), by frequency of the real Fourier transform.
    """

    mean: Tensor
    gains: Tensor

    @staticmethod
    def learned(guess: Tensor, truth: Tensor, mean: Tensor) -> "Trust":
        """guess, truth: (n, C, H, W) in [0, 1]; mean: (C, H, W)."""
        found, wanted = (torch.fft.rfft2(images - mean) for images in (guess, truth))
        band = _bands(guess.shape[-2:]).to(guess.device)
        gains = torch.zeros(band.shape, device=guess.device)
        for k in band.unique():
            own, true = found[..., band == k], wanted[..., band == k]
            energy = own.abs().square().sum().clamp_min(1e-12)
            gains[band == k] = ((own.conj() * true).real.sum() / energy).clamp(0, MOST)
        return Trust(mean, gains)

    def __call__(self, guess: Tensor) -> Tensor:
        """(N, C, H, W) -> the same, in [0, 1]."""
        kept = torch.fft.rfft2(guess - self.mean) * self.gains
        trusted: Tensor = (self.mean + torch.fft.irfft2(kept, s=guess.shape[-2:])).clamp(0, 1)
        return trusted


def _bands(size: torch.Size) -> Tensor:
    height, width = size
    down, right = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    return torch.bucketize((down.square() + right.square()).sqrt(), torch.tensor(EDGES))
