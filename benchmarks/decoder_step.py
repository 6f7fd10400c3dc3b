"""Seconds to an equal PSNR: this project's decoder training beside the plain way of published code.

The plain way: features recomputed for every batch, float32, contiguous memory, batches of 32, Adam 1e-3, a stack of
transposed convolutions with BatchNorm. Ours: features computed once (that time counts), the norm-free decoder of the
``decoder`` attack, channels_last, bf16 where the machine has it, batches of 64. Both train on the same images and the
same edge; they take turns, a slice each, so that a busy machine slows both; validation is not timed.

    python -m benchmarks.decoder_step [--weights cifar10_resnet20.safetensors --data npz:cifar10.npz] [--at layer2]
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.attacks.base import frozen
from splitveil.attacks.decoder import SIZES, ChannelScale, Decoder
from splitveil.cut import split
from splitveil.data import load_data
from splitveil.models.loader import load_model
from splitveil.seeds import generator, hardware
from splitveil.training import infer, precision_for

SLICE = 10
"""Steps of the plain loop in a turn; ours then runs for about as long."""


class TransposedStack(nn.Module):
    """Transposed 4x4 convolutions of stride 2 with BatchNorm, as in published attacks. (N, C, h, w) -> (N, c, H, W)."""

    def __init__(self, features: tuple[int, ...], image: tuple[int, int, int]) -> None:
        super().__init__()
        channels, size, layers, width = features[0], features[1], [], 64
        while size < image[1]:
            layers += [nn.ConvTranspose2d(channels, width, 4, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
            channels, size = width, 2 * size
        self.net = nn.Sequential(*layers, nn.Conv2d(channels, image[0], 3, 1, 1), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.net(z)
        return out


class Clock:
    """A training run that can be stopped and started, with a clock of its own."""

    def __init__(self, steps: Iterator[None]) -> None:
        self.steps, self.seconds, self.count, self.each = steps, 0.0, 0, list[float]()

    def run(self, count: int) -> None:
        """Take `count` steps."""
        for _ in range(count):
            start = time.perf_counter()
            next(self.steps)
            self.each.append(time.perf_counter() - start)
            self.seconds += self.each[-1]
            self.count += 1


def batches(count: int, size: int, name: str) -> Iterator[Tensor]:
    """Endless shuffled indices."""
    draws = generator(0, name)
    while True:
        yield from torch.randperm(count, generator=draws).split(size)


def plain_steps(edge: nn.Module, decoder: nn.Module, x: Tensor) -> Iterator[None]:
    """The plain way, a step at a time. x: (M, C, H, W) uint8."""
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-3)
    for index in batches(len(x), 32, "plain"):
        images = x[index].float() / 255
        with torch.no_grad():
            z = edge(images)
        decoder.train()
        loss = F.mse_loss(decoder(z), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def our_steps(decoder: nn.Module, scale: ChannelScale, z: Tensor, x: Tensor) -> Iterator[None]:
    """Our way, a step at a time. z: (M, *cut) cached, x: (M, C, H, W) uint8."""
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3, weight_decay=1e-4)
    half = precision_for(decoder).startswith("bf16")
    for step, index in enumerate(batches(len(x), 64, "ours")):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 30)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.mse_loss(decoder(scale(z[index])), x[index].float() / 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def psnr(decoder: nn.Module, z: Tensor, x: Tensor, precision: str = "32-true") -> float:
    """Mean over images, dB. z: (N, *cut), x: (N, C, H, W) uint8."""
    decoder.eval()
    guess = infer(decoder, z.split(250), precision).clamp(0, 1)
    return float(-10 * (guess - x.float() / 255).square().mean((1, 2, 3)).log10().mean())


def main() -> None:
    """Run both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", default="digits?size=32&channels=3")
    parser.add_argument("--at", default="layer2")
    parser.add_argument("--images", type=int, default=4000, help="the adversary's images at most")
    parser.add_argument("--epochs", type=int, default=3, help="of the plain loop")
    parser.add_argument("--save", type=Path, help="write the table as Markdown")
    args = parser.parse_args()

    data = load_data(args.data)
    model = load_model(args.model, shape=data.shape, classes=len(data.classes), weights=args.weights).model
    edge = frozen(split(model, args.at, torch.zeros(2, *data.shape)).edge)
    order = np.random.default_rng(0).permutation(len(data.train))[: args.images]
    x, held = torch.from_numpy(data.train.x[order]), torch.from_numpy(data.test.x[:500])
    held_z = infer(edge, (part.float() / 255 for part in held.split(250)))
    torch.manual_seed(0)
    plain_net = TransposedStack(tuple(held_z.shape[1:]), data.shape)
    plain = Clock(plain_steps(edge, plain_net, x))

    start = time.perf_counter()
    pictures = (p.float().div(255).contiguous(memory_format=torch.channels_last) for p in x.split(250))
    z = infer(edge, pictures).contiguous(memory_format=torch.channels_last)
    scale = ChannelScale(z[:2048])
    mean = (x.float() / 255).mean(0)
    net = Decoder(tuple(z.shape[1:]), data.shape, mean, *SIZES["small"])
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    caching = time.perf_counter() - start
    ours = Clock(our_steps(net, scale, z, x))
    ours.seconds = caching
    precision = precision_for(net)

    trail: list[tuple[float, float]] = []
    steps = args.epochs * -(-len(x) // 32)
    while plain.count < steps:
        plain.run(min(SLICE, steps - plain.count))
        behind = plain.seconds - ours.seconds
        if behind > 0 and (not trail or trail[-1][0] < plain.seconds):
            typical = statistics.median(ours.each[2:]) if len(ours.each) > 4 else 0.05
            ours.run(max(1, min(SLICE, round(behind / typical))))
            trail.append((ours.seconds, psnr(net, scale(held_z), held, precision)))
    goal = psnr(plain_net, held_z, held)
    reached = next((seconds for seconds, value in trail if value >= goal), None)
    plain_ms = 1e3 * statistics.median(plain.each[3:]) / 32
    our_ms = 1e3 * statistics.median(ours.each[3:]) / 64
    reached_in = f"{reached:.1f} ({caching:.1f} of it features) | {goal:.2f} |" if reached else "not reached | |"
    ratio = f"**{plain.seconds / reached:.1f}**" if reached else ""
    lines = [
        f"{args.model} at {args.at} on {data.name}, {len(x):,} images, {hardware()}, {precision}",
        "",
        "| | ms an image and step (median) | seconds | PSNR dB on 500 other images |",
        "|---|---|---|---|",
        f"| plain way, {args.epochs} epochs | {plain_ms:.2f} | {plain.seconds:.1f} | {goal:.2f} |",
        f"| SplitVeil, to the same PSNR | {our_ms:.2f} | {reached_in}",
        f"| SplitVeil, in the same time | {our_ms:.2f} | {trail[-1][0]:.1f} | {trail[-1][1]:.2f} |",
        f"| ratio | {plain_ms / our_ms:.1f} | {ratio} | at equal PSNR |",
    ]
    print("\n".join(lines))
    if args.save:
        args.save.parent.mkdir(parents=True, exist_ok=True)
        args.save.write_text(f"# Decoder training: time to an equal PSNR\n\n{__doc__}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
