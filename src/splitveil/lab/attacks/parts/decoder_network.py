"""A network from features to images that works for any feature shape and learns what a linear inverse leaves over."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.lab.attacks.linear import LinearInverse
from splitveil.lab.attacks.parts.blocks import BLOCKS
from splitveil.lab.attacks.parts.features import as_map, map_shape


class Decoder(nn.Module):
    """Features to image, at low resolution with many channels: pixel-unshuffle in, pixel-shuffle out.

    Works for any feature shape: maps larger than the working grid are unshuffled (nothing is lost), smaller ones grow
    by pixel-shuffle, flat features pass one linear layer. It learns what a linear inverse leaves over.

    Args:
        features: shape of z for one sample.
        image: (C, H, W).
        mean: (C, H, W), mean image of the adversary; where there is no linear inverse the net adds to it.
        width: channels at the working grid; twice as many below it.
        blocks: blocks a resolution.
        kind: of the last block a resolution, see `BLOCKS`; the others are residual.
        frequency: adds the log magnitudes of the features' spectrum to them (Golden Partition Zone).
        linear: in float32 beside the net, and not trained with it; None for none.
    """

    mean: Tensor

    def __init__(
        self,
        features: tuple[int, ...],
        image: tuple[int, int, int],
        mean: Tensor,
        width: int,
        blocks: int,
        *,
        kind: str = "residual",
        frequency: bool = False,
        linear: LinearInverse | None = None,
    ) -> None:
        super().__init__()
        self.image, self.frequency, self.linear = image, frequency, linear
        self.register_buffer("mean", mean)
        channels, *size = image
        self.factor = 1 if max(size) < 16 else 2 if max(size) <= 48 else 4 if max(size) <= 128 else 8
        work = [math.ceil(s / self.factor) for s in size]
        self.dense: nn.Module | None = None
        c, h, w = map_shape(features)
        if h * w == 1:
            h, w = (math.ceil(s / 4) for s in work)
            self.dense = nn.Linear(c, 2 * width * h * w)
            c = 2 * width
        self.unshuffle = max(math.ceil(h / work[0]), math.ceil(w / work[1]))
        h, w = math.ceil(h / self.unshuffle), math.ceil(w / self.unshuffle)
        self.start = (h, w)
        layers: list[nn.Module] = []
        now = width if 2 * h > work[0] else 2 * width
        layers.append(nn.Conv2d((2 if frequency else 1) * c * self.unshuffle**2, now, 3, 1, 1))
        layers += stage(now, blocks, kind)
        while 2 * h <= work[0] or 2 * w <= work[1]:
            layers += [nn.Conv2d(now, 4 * width, 3, 1, 1), nn.PixelShuffle(2)]
            h, w, now = 2 * h, 2 * w, width
            layers += stage(now, max(1, blocks // 2), kind)
        if [h, w] != work:
            layers.append(nn.Upsample(size=tuple(work), mode="bilinear", align_corners=False))
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(now, channels * self.factor**2, 3, 1, 1)
        nn.init.normal_(self.head.weight, std=1e-2 / math.sqrt(now))
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> Tensor:
        """z: (N, *cut), normalised -> (N, C, H, W), not clipped."""
        grid = as_map(z)
        if self.dense is not None:
            grid = self.dense(grid.flatten(1)).unflatten(1, (-1, *self.start))
        elif self.unshuffle > 1:
            wanted = [s * self.unshuffle for s in self.start]
            grid = F.pad(grid, (0, wanted[1] - grid.shape[3], 0, wanted[0] - grid.shape[2]))
            grid = F.pixel_unshuffle(grid, self.unshuffle)
        if self.frequency:
            grid = torch.cat([grid, spectrum(grid)], 1)
        out = F.pixel_shuffle(self.head(F.relu(self.body(grid))).float(), self.factor)
        out = out[..., : self.image[1], : self.image[2]]
        if self.linear is None:
            return self.mean + out
        with torch.autocast(z.device.type, enabled=False):
            straight: Tensor = self.linear(z.float())
        return straight + out


def stage(width: int, blocks: int, kind: str) -> list[nn.Module]:
    """Blocks of one resolution; the last is of the kind asked for."""
    plain = [BLOCKS["residual"](width, blocks) for _ in range(blocks - 1)]
    return [*plain, BLOCKS[kind](width, blocks)]


def spectrum(z: Tensor) -> Tensor:
    """Logarithm of the magnitudes of each map's Fourier coefficients, normalised a sample. (N, c, h, w) -> same."""
    with torch.autocast(z.device.type, enabled=False):
        coefficients = torch.fft.fft2(z.float(), norm="ortho")
        logs = torch.log1p(coefficients.real.abs() + coefficients.imag.abs())
        spread, mean = torch.std_mean(logs, (1, 2, 3), keepdim=True)
        return ((logs - mean) / spread.clamp_min(1e-6)).to(z.dtype)
