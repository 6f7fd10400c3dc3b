"""A small vision transformer for small images (Dosovitskiy et al. 2021), with the mean of all tokens for a class token.

Pooling as in Beyer, Zhai and Kolesnikov 2022 (arXiv 2205.01580), so that every block hands on patches and nothing else.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from splitveil.lab.models.base import Normalize, require_size

PATCH, WIDTH, DEPTH, HEADS = 4, 96, 6, 3


class Attention(nn.Module):
    """Multi-head self-attention. x: (N, L, D) -> (N, L, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.split = (3, heads, width // heads)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, self.split).permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention, then two linear layers, each upon the normalised sum so far. x: (N, L, D) -> (N, L, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class VisionTransformer(nn.Module):
    """Patches, blocks, mean, one linear layer. x: (N, C, H, W) in [0, 1] -> logits (N, K)."""

    def __init__(
        self, shape: tuple[int, int, int], classes: int, patch: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        channels, height, side = shape
        self.normalize = Normalize(channels)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(torch.randn(1, (height // patch) * (side // patch), width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(self.normalize(x)).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


def vit_tiny32(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """A vision transformer of 4x4 patches, six blocks, 96 numbers a token and three heads (0.7 M parameters).

    Raises:
        InputError: images smaller than 8x8.
    """
    require_size("vit_tiny32", shape, 8)
    return VisionTransformer(shape, classes, PATCH, WIDTH, DEPTH, HEADS)
