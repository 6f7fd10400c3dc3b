"""Self-attention over the channels or positions of features: two numbers for each, which depend on the input."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError

TOKENS = ("channels", "positions")
MOST_CHANNELS = 256
"""Tokens of channels; of more channels, neighbours share a token and are told apart by its output."""
MOST_POSITIONS = 64
"""Positions are pooled to a grid of at most so many."""
QUIET = 0.1
"""Share of the usual size that the output layer begins with."""


class SelfAttention(nn.Module):
    """One head of attention: ``softmax(q k' / sqrt(width)) v`` on embedded tokens, then two numbers for each token.

    PriPro's module as read in `splitveil.lab.defenses.pripro`. Each token also has a learned embedding and keeps itself
    beside what it attends to (our reading): without them all channels with the same content would be treated alike.

    Args:
        shape: of one sample's features: a map (C, h, w), tokens (L, D) with D as channels, or flat (D,).
        tokens: ``channels`` sees each channel's map, pooled to 8x8; ``positions`` sees the channels at each of at most
            64 positions.
        width: of the embedding.

    Raises:
        InputError: unknown tokens, or positions of flat features.
    """

    def __init__(self, shape: tuple[int, ...], *, tokens: str = "channels", width: int = 32) -> None:
        super().__init__()
        if tokens not in TOKENS or width < 1:
            raise InputError(
                f"expected tokens of {' or '.join(TOKENS)} and width >= 1, got {tokens!r}, {width}; use "
                "pripro:tokens=channels,width=32."
            )
        if tokens == "positions" and len(shape) == 1:
            raise InputError(f"expected features with positions, got {shape}; use pripro:tokens=channels.")
        self.shape, self.tokens, self.width = tuple(shape), tokens, width
        channels, height, width_ = shape if len(shape) == 3 else (shape[-1], math.prod(shape[:-1]), 1)
        self.grid = (
            (min(height, 8), min(width_, 8)) if len(shape) == 3 else (min(height, MOST_POSITIONS), 1)
        )  # fmt: skip
        self.register_buffer("down", averages(self.grid[0], height), persistent=False)
        self.register_buffer("across", averages(self.grid[1], width_), persistent=False)
        self.register_buffer("rows", torch.arange(height) * self.grid[0] // height, persistent=False)
        self.register_buffer("columns", torch.arange(width_) * self.grid[1] // width_, persistent=False)
        self.channels, places = channels, math.prod(self.grid)
        self.group = math.ceil(channels / MOST_CHANNELS) if tokens == "channels" else 1
        count = math.ceil(channels / self.group) if tokens == "channels" else places
        self.embed = nn.Linear(self.group * places if tokens == "channels" else channels, width)
        self.place = nn.Parameter(torch.randn(count, width) / math.sqrt(width))
        self.heads = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, 2 * self.group)
        with torch.no_grad():
            self.out.weight.mul_(QUIET)
            self.out.bias.zero_()

    down: Tensor
    across: Tensor
    rows: Tensor
    columns: Tensor

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """h: (N, *shape), of a scale near 1 -> two tensors that broadcast to it, one number a channel or position."""
        embedded = self.embed(self._tokens(h)) + self.place
        query, key, value = self.heads(embedded).chunk(3, 2)
        seen = (query @ key.transpose(1, 2) / math.sqrt(self.width)).softmax(2) @ value
        first, second = self.out(embedded + seen).float().chunk(2, 2)
        return self._spread(first), self._spread(second)

    def _tokens(self, h: Tensor) -> Tensor:
        """(N, *shape) -> (N, tokens, features of each)."""
        if len(self.shape) < 3:
            h = h.transpose(1, 2) if len(self.shape) == 2 else h[:, :, None]
            h = h[..., None]
        pooled = (h if self.grid == tuple(h.shape[2:]) else self.down @ h @ self.across.T).flatten(2)
        if self.tokens == "positions":
            return pooled.transpose(1, 2)
        padded = F.pad(pooled, (0, 0, 0, len(self.place) * self.group - self.channels)) if self.group > 1 else pooled
        return padded.reshape(-1, len(self.place), self.group * pooled.shape[2])

    def _spread(self, values: Tensor) -> Tensor:
        """(N, tokens, group) -> what broadcasts to (N, *shape)."""
        if self.tokens == "channels":
            flat = values.flatten(1)[:, : self.channels]
            return flat[:, :, None, None] if len(self.shape) == 3 else flat[:, None] if len(self.shape) == 2 else flat
        grid = values.reshape(-1, 1, *self.grid).index_select(2, self.rows).index_select(3, self.columns)
        return grid if len(self.shape) == 3 else grid[:, 0]


def averages(parts: int, length: int) -> Tensor:
    """A matrix (parts, length) that averages over windows of equal length, as adaptive pooling does."""
    index, part = torch.arange(length)[None], torch.arange(parts)[:, None]
    inside = (index >= part * length // parts) & (index < -(-(part + 1) * length // parts))
    return inside / inside.sum(1, keepdim=True)
