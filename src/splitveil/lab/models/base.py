"""What every model here shares: images come in as [0, 1] and are normalised by the model's own first step."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """(x - mean) / std per channel; the constants are not part of the state dict.

    Args:
        channels: of the image; three get ImageNet's statistics, others 0.5 and 0.5, unless given.
        mean: per channel, in [0, 1].
        std: per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        super().__init__()
        rgb = channels == len(IMAGENET_MEAN)
        mean = mean if mean is not None else IMAGENET_MEAN if rgb else (0.5,) * channels
        std = std if std is not None else IMAGENET_STD if rgb else (0.5,) * channels
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def normalized(net: nn.Module, normalize: Normalize) -> nn.Module:
    """Give `net` its preprocessing as its first step, in place, without renaming any of its modules or weights."""
    base = cast(Any, type(net))

    class WithPreprocessing(base):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(self.normalize(x))
            return out

    WithPreprocessing.__name__ = base.__name__
    net.__class__ = WithPreprocessing
    net.normalize = normalize
    return net


def require_size(name: str, shape: tuple[int, int, int], least: int) -> None:
    """Refuse images (C, H, W) that the net `name` would shrink away.

    Raises:
        InputError: a side shorter than `least` pixels.
    """
    if min(shape[1:]) < least:
        raise InputError(
            f"{name} expected images of at least {least}x{least} pixels, got {shape[1]}x{shape[2]}; "
            f"enlarge them with ?size={least} after the data's name."
        )
