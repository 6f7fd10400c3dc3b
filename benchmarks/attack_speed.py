"""The attacks beside the plain way of published code: seconds to an equal PSNR, and a likelihood step's time.

Decoder. The plain way: features recomputed for every batch, float32, contiguous memory, batches of 32, Adam 1e-3, a
stack of transposed convolutions with BatchNorm, 50 epochs. Ours: the ``decoder`` attack as a user runs it, features
computed once (that time counts) and linear inverse first, with 1, 2, 3 … epochs, each run from nothing; what counts is
the first that ends at the plain way's final PSNR. Both hold the same images and the same edge.

Likelihood. The plain way: Adam on pixels with total variation, float32, contiguous memory, BatchNorm as it is. Ours: a
step of ``mle``. The same images, the same number of steps; milliseconds an image and step, and the PSNR reached.

The two sides take turns, a slice each, so that a busy machine slows both; validation is not timed.

    python -m benchmarks.attack_speed [--weights cifar10_resnet20.safetensors --data npz:cifar10.npz] [--at layer2]
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

from benchmarks.net import load_net
from benchmarks.page import save_tables
from splitveil.lab.attacks.base import Attack, frozen
from splitveil.lab.attacks.decoder import InverseNetwork, mean_psnr
from splitveil.lab.attacks.mle import MaximumLikelihood
from splitveil.lab.attacks.view import PRESETS, Aux, View
from splitveil.lab.data import load_data
from splitveil.lab.seeds import generator, hardware
from splitveil.lab.tensors import total_variation
from splitveil.lab.training import infer, native_precision

MLE_STEPS, MLE_IMAGES, TURNS = 150, 64, 3
OURS = (1, 2, 3, 4, 6)
"""Epochs of our runs, which lie between slices of the plain one; which was enough is known at its end."""


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


class Passing(nn.Module):
    """No defence."""

    def forward(self, z: Tensor) -> Tensor:
        return z


def plain_epochs(edge: nn.Module, decoder: nn.Module, x: Tensor) -> Iterator[float]:
    """The plain way; the seconds of each epoch. x: (M, C, H, W) uint8."""
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-3)
    draws = generator(0, "plain")
    while True:
        decoder.train()
        start = time.perf_counter()
        for index in torch.randperm(len(x), generator=draws).split(32):
            images = x[index].float() / 255
            with torch.no_grad():
                z = edge(images)
            loss = F.mse_loss(decoder(z), images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield time.perf_counter() - start


def our_view(edge: nn.Module, x: Tensor, held: Tensor) -> tuple[View, float]:
    """What the adversary holds, and the seconds that its features took. x, held: uint8 images."""
    start = time.perf_counter()
    z = torch.cat([infer(edge, [_last(p)]) for p in x.split(250)])
    z = z.contiguous(memory_format=torch.channels_last) if z.ndim == 4 else z
    seconds = time.perf_counter() - start
    crossed = infer(edge, (_last(p) for p in held.split(250)))
    shape = (x.shape[1], x.shape[2], x.shape[3])
    aux = Aux(x, torch.full((len(x),), -1))
    view = View(
        crossed, shape, knows=PRESETS["white-box"], aux=aux, observe=lambda i: z[i], query=edge, edge=edge,
        defense=Passing(), cloud=nn.Identity(),
    )  # fmt: skip
    return view, seconds


def _last(x: Tensor) -> Tensor:
    return x.float().div(255).contiguous(memory_format=torch.channels_last)


def plain_mle(edge: nn.Module, z: Tensor, shape: tuple[int, int, int], steps: int) -> Tensor:
    """The plain way: Adam on pixels, started grey."""
    x = torch.full((len(z), *shape), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=1e-2, amsgrad=True, eps=1e-3)
    for _ in range(steps):
        loss = (edge(x) - z).square().sum() + total_variation(x).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return x.detach()


def timed(attack: Attack, view: View) -> tuple[Tensor, float]:
    """The guess and its seconds, nothing that another run made in reach."""
    found = attack(view.within("bench", view.knows, observe=view.observe))
    return found.x_hat, found.seconds


def decoders(edge: nn.Module, x: Tensor, held: Tensor, epochs: int) -> list[str]:
    """The decoder's table."""
    truth = held.float() / 255
    view, caching = our_view(edge, x, held)
    torch.manual_seed(0)
    plain = TransposedStack(tuple(view.z.shape[1:]), view.image_shape)
    plain_run, clock, runs = plain_epochs(edge, plain, x), list[float](), list[tuple[int, float, float]]()
    for turn, ours in enumerate(OURS, 1):
        clock += [next(plain_run) for _ in range(epochs * turn // len(OURS) - len(clock))]
        guess, seconds = timed(InverseNetwork(epochs=ours, steps=1), view)
        runs.append((ours, caching + seconds, mean_psnr(guess, truth)))
        print(f"ours, {ours} epochs: {caching + seconds:.1f} s, {runs[-1][2]:.2f} dB", flush=True)
    plain.eval()
    goal, total = mean_psnr(infer(plain, view.z.split(250)), truth), sum(clock)
    enough = next((r for r in runs if r[2] >= goal), None)
    lines = [
        "| decoder | seconds | PSNR dB on other images |", "|---|---|---|",
        f"| plain way, {epochs} epochs | {total:.1f} | {goal:.2f} |",
        *(f"| SplitVeil, epochs={k} | {s:.1f} | {v:.2f} |" for k, s, v in runs),
    ]  # fmt: skip
    lines.append(
        f"| **ratio at no less PSNR** | **{total / enough[1]:.1f}** | {enough[2] - goal:+.2f} |"
        if enough
        else "| not reached | | |"
    )
    return lines


def likelihoods(edge: nn.Module, x: Tensor, held: Tensor) -> list[str]:
    """The likelihood's table."""
    view, _ = our_view(edge, x[:64], held[:MLE_IMAGES])
    truth = held[:MLE_IMAGES].float() / 255
    spec = MaximumLikelihood(steps=MLE_STEPS, start="mean", rate=0.1, prior=0.03)
    ours, plain, reached = list[float](), list[float](), (0.0, 0.0)
    for turn in range(TURNS + 1):
        start = time.perf_counter()
        guess = plain_mle(edge, view.z, view.image_shape, MLE_STEPS)
        middle = time.perf_counter()
        found, seconds = timed(spec, view)
        if turn:
            plain.append(middle - start)
            ours.append(seconds)
            reached = (mean_psnr(guess, truth), mean_psnr(found, truth))
    a, b = (1e3 * statistics.median(t) / (MLE_IMAGES * MLE_STEPS) for t in (plain, ours))
    return [
        f"| likelihood, {MLE_IMAGES} images, {MLE_STEPS} steps | ms an image and step | PSNR dB |", "|---|---|---|",
        f"| plain way | {a:.3f} | {reached[0]:.2f} |", f"| SplitVeil | {b:.3f} | {reached[1]:.2f} |",
        f"| **ratio** | **{a / b:.1f}** | {reached[1] - reached[0]:+.2f} |",
    ]  # fmt: skip


def main() -> None:
    """Run both comparisons and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", default="digits?size=32&channels=3")
    parser.add_argument("--at", default="layer2")
    parser.add_argument("--images", type=int, default=4000, help="the adversary's images at most")
    parser.add_argument("--epochs", type=int, default=50, help="of the plain way")
    parser.add_argument("--save", type=Path, help="write the tables as Markdown")
    args = parser.parse_args()

    data = load_data(args.data)
    edge = frozen(load_net(args.model, data, args.weights).traced.split(args.at).edge)
    order = np.random.default_rng(0).permutation(len(data.train))[: args.images]
    x, held = torch.from_numpy(data.train.x[order]), torch.from_numpy(data.test.x[:500])
    head = f"{args.model} at {args.at} on {data.name}, {len(x):,} images, {hardware()}, {native_precision()}"
    lines = [head, "", *likelihoods(edge, x, held), "", *decoders(edge, x, held, args.epochs)]
    print("\n".join(lines))
    if args.save:
        save_tables(args.save, "Speed of the attacks", __doc__, lines)


if __name__ == "__main__":
    main()
