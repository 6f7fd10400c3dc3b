"""The inverse network: a decoder trained on the adversary's images and their features (He et al. 2019, section 5)."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.attacks.base import Attack, seed_view
from splitveil.attacks.view import Knows, View
from splitveil.errors import InputError
from splitveil.registry import Value
from splitveil.training import IndexBatches, fit, infer, precision_for

SIZES = {"tiny": (24, 2), "small": (64, 4), "medium": (96, 6), "large": (128, 10)}
"""Width and residual blocks per resolution."""


class ScaledBlock(nn.Module):
    """Norm-free residual block whose branch starts small, so that depth needs no normalisation. (N, W, h, w) -> same.

    BatchNorm takes back on CPUs what bf16 gains, and its batch statistics blur what single images leak.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        for conv in (self.first, self.second):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.second.weight.mul_(0.5 * blocks**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return out


class Decoder(nn.Module):
    """Features to image, at low resolution with many channels: pixel-unshuffle in, pixel-shuffle out.

    Works for any feature shape: maps larger than the working grid are unshuffled (nothing is lost), smaller ones grow
    by pixel-shuffle, tokens return to their square (a class token joins as constant channels), flat features pass one
    linear layer.

    Args:
        features: shape of z for one sample.
        image: (C, H, W).
        mean: (C, H, W), mean image of the adversary; the net learns the difference to it.
        width: channels at the working grid; twice as many below it.
        blocks: residual blocks a resolution.
    """

    mean: Tensor

    def __init__(
        self, features: tuple[int, ...], image: tuple[int, int, int], mean: Tensor, width: int, blocks: int
    ) -> None:
        super().__init__()
        self.features, self.image = features, image
        self.register_buffer("mean", mean)
        channels, *size = image
        self.factor = 1 if max(size) < 16 else 2 if max(size) <= 48 else 4 if max(size) <= 128 else 8
        work = [math.ceil(s / self.factor) for s in size]
        self.linear: nn.Module | None = None
        c, h, w = self._grid()
        if h * w == 1:
            h, w = (math.ceil(s / 4) for s in work)
            self.linear = nn.Linear(c, 2 * width * h * w)
            c = 2 * width
        self.unshuffle = max(math.ceil(h / work[0]), math.ceil(w / work[1]))
        h, w = math.ceil(h / self.unshuffle), math.ceil(w / self.unshuffle)
        self.start = (h, w)
        layers: list[nn.Module] = []
        now = width if 2 * h > work[0] else 2 * width
        layers.append(nn.Conv2d(c * self.unshuffle**2, now, 3, 1, 1))
        layers += [ScaledBlock(now, blocks) for _ in range(blocks)]
        while 2 * h <= work[0] or 2 * w <= work[1]:
            layers += [nn.Conv2d(now, 4 * width, 3, 1, 1), nn.PixelShuffle(2)]
            h, w, now = 2 * h, 2 * w, width
            layers += [ScaledBlock(now, blocks) for _ in range(max(1, blocks // 2))]
        if [h, w] != work:
            layers.append(nn.Upsample(size=tuple(work), mode="bilinear", align_corners=False))
        self.body = nn.Sequential(*layers)
        # At the working grid the straight way is linear in z itself and in float32: a shallow edge is nearly linear.
        self.straight = list(self.start) == work and self.linear is None
        self.linear_head = nn.Conv2d(
            c * self.unshuffle**2 if self.straight else now, channels * self.factor**2, 3, 1, 1
        )
        self.head = nn.Conv2d(now, channels * self.factor**2, 3, 1, 1)
        for head in (self.linear_head, self.head):
            nn.init.normal_(head.weight, std=1e-2 / math.sqrt(head.in_channels))
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> Tensor:
        """z: (N, *cut), normalised -> (N, C, H, W), not clipped."""
        z = self._as_grid(z)
        if self.linear is not None:
            z = self.linear(z.flatten(1)).unflatten(1, (-1, *self.start))
        elif self.unshuffle > 1:
            wanted = [s * self.unshuffle for s in self.start]
            z = F.pixel_unshuffle(F.pad(z, (0, wanted[1] - z.shape[3], 0, wanted[0] - z.shape[2])), self.unshuffle)
        deep = self.body(z)
        with torch.autocast(z.device.type, enabled=False):
            linear = self.linear_head((z if self.straight else deep).float())
        out = F.pixel_shuffle(self.head(F.relu(deep)).float() + linear, self.factor)
        return self.mean + out[..., : self.image[1], : self.image[2]]

    def _grid(self) -> tuple[int, int, int]:
        match self.features:
            case (c, h, w):
                return c, h, w
            case (tokens, d):
                side = math.isqrt(tokens)
                if side * side == tokens:
                    return d, side, side
                side = math.isqrt(tokens - 1)
                return (2 * d, side, side) if side > 1 and side * side == tokens - 1 else (tokens * d, 1, 1)
            case _:
                return math.prod(self.features), 1, 1

    def _as_grid(self, z: Tensor) -> Tensor:
        c, h, w = self._grid()
        if z.ndim == 3 and h > 1:
            extra, tokens = z[:, : z.shape[1] - h * w], z[:, z.shape[1] - h * w :]
            square = tokens.transpose(1, 2).unflatten(2, (h, w))
            return (
                torch.cat([square, extra.mean(1)[..., None, None].expand_as(square)], 1) if c > z.shape[2] else square
            )
        return z.reshape(len(z), c, h, w)


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


class Objective(nn.Module):
    """Mean squared pixel error of the decoder: (z, x) -> scalar."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return F.mse_loss(self.decoder(z), x)


class InverseNetwork(Attack):
    """Decoder trained on the adversary's images and their defended features, with fresh noise in every batch.

    Features of the adversary's images are computed once; each step reads them from memory. The weights kept are those
    of the epoch that was best on images that the adversary set aside.

    Args:
        size: tiny, small, medium or large.
        epochs: passes over the adversary's images; more where they are few, so that there are at least `steps`.
        steps: least number of optimiser steps.
        batch: images a step.
        lr: peak learning rate.
    """

    name: ClassVar[str] = "decoder"
    needs = Knows.AUX | Knows.QUERIES
    scale_free: ClassVar[bool] = True

    def __init__(
        self, *, size: str = "small", epochs: int = 6, steps: int = 600, batch: int = 64, lr: float = 2e-3
    ) -> None:
        if size not in SIZES:
            raise InputError(f"unknown decoder size {size!r}; choose from {', '.join(SIZES)}.")
        if min(epochs, steps, batch) < 1 or lr <= 0:
            raise InputError("expected epochs, steps and batch of at least 1 and lr > 0; use decoder:epochs=6.")
        self.size, self.epochs, self.steps, self.batch, self.lr = size, epochs, steps, batch, lr

    def run(self, view: View) -> Tensor:
        seed_view(view, self.name)
        aux = view.aux
        held = max(1, min(len(aux) // 10, 512))
        train, valid = len(aux) - held, torch.arange(len(aux) - held, len(aux))
        scale = ChannelScale(view.observe(torch.arange(min(train, 2048))))
        width, blocks = SIZES[self.size]
        mean = aux.images().mean(0)
        decoder = Decoder(tuple(view.z.shape[1:]), view.image_shape, mean, width, blocks)
        decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def read(index: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
            return scale(view.observe(index)), aux.images(index)

        def validate() -> float:
            x_hat = infer(decoder, (scale(view.observe(i)) for i in valid.split(256)), precision).clamp(0, 1)
            return -10 * (x_hat - aux.images(valid)).square().mean((1, 2, 3)).clamp_min(1e-10).log10().mean().item()

        precision = precision_for(decoder)
        batches = IndexBatches(train, self.batch, read)
        fit(
            Objective(decoder),
            batches,
            epochs=max(self.epochs, math.ceil(self.steps / len(batches))),
            lr=self.lr,
            weight_decay=1e-4,
            seed=view.seed,
            precision=precision,
            checkpoint=view.workdir / "decoder.safetensors" if view.workdir else None,
            resume=True,
            validate=validate,
            what=f"{self.name} {view.label}".strip(),
        )
        return infer(decoder, (scale(part) for part in view.z.split(256)), precision)

    def options(self) -> dict[str, Value]:
        return {"size": self.size, "epochs": self.epochs, "steps": self.steps, "batch": self.batch, "lr": self.lr}
