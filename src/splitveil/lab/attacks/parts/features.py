"""Features as a decoder reads them: as maps, in units of their own spread."""

import math

import torch
from torch import Tensor, nn


def map_shape(features: tuple[int, ...]) -> tuple[int, int, int]:
    """(c, h, w) of the map that features of this shape are arranged as; flat features are 1 x 1 maps.

    Tokens return to their square; a class token joins as constant channels.
    """
    match features:
        case (c, h, w):
            return c, h, w
        case (tokens, d):
            side = math.isqrt(tokens)
            if side * side == tokens:
                return d, side, side
            side = math.isqrt(tokens - 1)
            return (2 * d, side, side) if side > 1 and side * side == tokens - 1 else (tokens * d, 1, 1)
        case _:
            return math.prod(features), 1, 1


def as_map(z: Tensor) -> Tensor:
    """z: (N, *cut) -> (N, c, h, w) with ``map_shape(cut)``."""
    c, h, w = map_shape(tuple(z.shape[1:]))
    if z.ndim != 3 or h == 1:
        return z.reshape(len(z), c, h, w)
    extra, tokens = z[:, : z.shape[1] - h * w], z[:, z.shape[1] - h * w :]
    square = tokens.transpose(1, 2).unflatten(2, (h, w))
    return torch.cat([square, extra.mean(1)[..., None, None].expand_as(square)], 1) if c > z.shape[2] else square


class ChannelScale(nn.Module):
    """Features in units of their own spread over the adversary's images, so that scaling z changes nothing.

    Channels are axis 1 of maps and flat features, the last axis of tokens. z: (N, *cut) -> (N, *cut).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        axes = tuple(i for i in range(z.ndim) if i != (2 if z.ndim == 3 else 1))
        spread, shift = torch.std_mean(z, axes, keepdim=True)
        dead = spread <= 1e-6 * spread.max()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", torch.where(dead, 0.0, 1 / spread.clamp_min(torch.finfo(z.dtype).tiny)))

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.shift) * self.scale
