"""The best linear inverse, in closed form: ridge regression from features to pixels.

No paper of split inference starts here, and it costs seconds: shallow edges are nearly linear, and at deep cuts one
dense map from all features to all pixels is a strong adversary already. The decoder learns what remains.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.progress import task
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.base import Attack, seed_view
from splitveil.lab.attacks.parts.features import ChannelScale, as_map, map_shape
from splitveil.lab.attacks.parts.ridge import ridge_weights
from splitveil.lab.attacks.view import Knows, View

RIDGES = (1e-11, 1e-7, 1e-3, 0.03, 0.3, 1.0, 10.0)
"""Penalties tried in this order, in units of the mean square of an input, until one is worse than the one before."""
WIDEST = 1700
"""Inputs of a local map at most: channels times window."""
DENSE = 5000
"""Features of a dense map at most."""
WINDOWS = (1, 3, 5, 9)
ROWS = 30_000
"""Positions from which a local map is estimated."""

Read = Callable[[Tensor], tuple[Tensor, Tensor]]


class LinearInverse(nn.Module):
    """An affine map from features to images: one window for all positions, or dense. z: (N, *cut) -> (N, C, H, W).

    Args:
        features: shape of z for one sample.
        image: (C, H, W).
        window: side of the window in features, odd; 0 for a dense map.
        base: (C, H, W), the image that the map adds to. One window for all positions makes a whole image only upon
            nothing, and the difference to the mean image only upon that one.
    """

    weight: Tensor
    bias: Tensor
    base: Tensor

    def __init__(self, features: tuple[int, ...], image: tuple[int, int, int], window: int, base: Tensor) -> None:
        super().__init__()
        self.image, self.window = image, window
        self.register_buffer("base", base.clone())
        c, h, w = map_shape(features)
        channels, height, width = image
        self.ratio = max(1, round(height / h), round(width / w))
        self.grid = (math.ceil(height / self.ratio), math.ceil(width / self.ratio))
        inputs = c * window**2 if window else c * h * w
        outputs = channels * self.ratio**2 if window else math.prod(image)
        self.register_buffer("weight", base.new_zeros(outputs, inputs))
        self.register_buffer("bias", base.new_zeros(outputs))

    def forward(self, z: Tensor) -> Tensor:
        if not self.window:
            return self.base + F.linear(z.flatten(1), self.weight, self.bias).reshape(-1, *self.image)
        z = self._placed(z)
        kernel = self.weight.reshape(len(self.weight), z.shape[1], self.window, self.window)
        x = F.pixel_shuffle(F.conv2d(z, kernel, self.bias, padding=self.window // 2), self.ratio)
        return self.base + _centred(x, self.image[1], self.image[2])

    def inputs(self, z: Tensor, chosen: Tensor) -> Tensor:
        """Inputs of the regression at some positions. z: (N, *cut), chosen: (N, positions) bool -> (rows, inputs)."""
        if not self.window:
            return z.flatten(1)[chosen[:, 0]]
        side = self.window // 2
        windows = F.pad(self._placed(z), (side, side, side, side)).unfold(2, self.window, 1).unfold(3, self.window, 1)
        return windows.permute(0, 2, 3, 1, 4, 5)[chosen.reshape(-1, *self.grid)].flatten(1)

    def targets(self, x: Tensor) -> Tensor:
        """Outputs of the regression by position. (N, C, H, W) -> (N, positions, outputs)."""
        if not self.window:
            return x.flatten(1)[:, None]
        whole = _centred(x, self.grid[0] * self.ratio, self.grid[1] * self.ratio)
        return F.pixel_unshuffle(whole, self.ratio).flatten(2).transpose(1, 2)

    def _placed(self, z: Tensor) -> Tensor:
        """As a map on the grid that the image is made of, centred: unpadded convolutions have eaten the border."""
        return _centred(as_map(z), *self.grid)


def _centred(x: Tensor, height: int, width: int) -> Tensor:
    """Cut or padded with zeros to (height, width), about the middle. x: (N, C, h, w)."""
    top, left = (height - x.shape[2]) // 2, (width - x.shape[3]) // 2
    return F.pad(x, (left, width - x.shape[3] - left, top, height - x.shape[2] - top))


def fit_linear(
    read: Read, count: int, valid: tuple[Tensor, Tensor], mean: Tensor, seed: int, *, dense: bool = True
) -> LinearInverse:
    """The linear inverse that is best on held-out images, among windows, a dense map and penalties.

    Args:
        read: index (n,) -> (z (n, *cut), x (n, C, H, W)), z in units of its spread.
        count: images to estimate from.
        valid: held-out z and x.
        mean: (C, H, W), the mean image.
        seed: of the choice of positions.
        dense: whether a dense map may be taken; flat features have no other.
    """
    features, image = tuple(valid[0].shape[1:]), (mean.shape[0], mean.shape[1], mean.shape[2])
    c, h, w = map_shape(features)
    windows = [k for k in WINDOWS if c * k * k <= WIDEST and k <= 2 * max(h, w) - 1] if h * w > 1 else []
    # Small windows see nothing that larger ones miss; one smaller is kept for when images are few.
    tried = [*windows[-2:], *([0] if dense and c * h * w <= DENSE else [])] or [1]
    best = LinearInverse(features, image, tried[0], mean)
    least = float((valid[1] - mean).square().mean())
    with torch.no_grad():
        for window in tried:
            # A dense map has a bias for every pixel: nothing else to add to is worth trying.
            bases = [mean, torch.zeros_like(mean)] if window else [mean]
            shapes = [LinearInverse(features, image, window, base) for base in bases]
            before = math.inf
            for solved in _solutions(shapes, read, count, seed):
                errors = [float((linear(valid[0]) - valid[1]).square().mean()) for linear in solved]
                if min(errors) < least:
                    best, least = copy.deepcopy(solved[errors.index(min(errors))]), min(errors)
                if min(errors) > before:
                    break
                before = min(errors)
    return best


def _solutions(shapes: list[LinearInverse], read: Read, count: int, seed: int) -> Iterator[list[LinearInverse]]:
    """`shapes`, which differ in their bases only, solved for each penalty in turn, in place."""
    first = shapes[0]
    positions = first.grid[0] * first.grid[1] if first.window else 1
    used = min(count, max(256, ROWS // positions) if first.window else count)
    keep = min(1.0, ROWS / (used * positions))
    outputs, inputs = first.weight.shape
    # An injective edge is undone exactly only if its weakest directions are not lost in rounding.
    device = first.weight.device
    kind = Accelerator.of(first.weight).exact if inputs <= WIDEST else torch.float32
    gram = torch.zeros(inputs + 1, inputs + 1, dtype=kind, device=device)
    cross = torch.zeros(inputs + 1, len(shapes) * outputs, dtype=kind, device=device)
    draws = torch.Generator().manual_seed(seed)
    for index in torch.arange(used).split(256):
        z, x = read(index)
        chosen = (torch.rand(len(x), positions, generator=draws) < keep).to(device)
        a = first.inputs(z, chosen)
        b = torch.cat([shape.targets(x - shape.base) for shape in shapes], 2)[chosen]
        a = torch.cat([a, a.new_ones(len(a), 1)], 1).to(kind)
        gram += a.T @ a
        cross += a.T @ b.to(kind)
    for weights in ridge_weights(gram, cross, RIDGES, constant=True):
        for shape, part in zip(shapes, weights.float().split(outputs, 1), strict=True):
            shape.weight.copy_(part[:-1].T)
            shape.bias.copy_(part[-1])
        yield shapes


class Linear(Attack):
    """The best linear map from features to pixels, fitted to the adversary's own images.

    The best affine map from features to pixels, by ridge regression on the adversary's images: seconds, no training.
    A local map (the same window of features for every position) and, where features are few enough, a dense one; window
    and penalty are those that are best on images that the adversary set aside.
    """

    name: ClassVar[str] = "linear"
    needs = Knows.AUX | Knows.QUERIES
    scale_free: ClassVar[bool] = True

    def run(self, view: View) -> Tensor:
        seed_view(view, self.name)
        aux = view.aux
        valid = aux.held_out
        train = len(aux) - len(valid)
        mean = aux.images().mean(0)
        scale = ChannelScale(view.observe(torch.arange(min(train, 2048))))
        draws = 2 if view.stochastic else 1
        # It need not read all images, but those that it does read as often as that.
        view.record(draws=float(draws))

        def read(index: Tensor) -> tuple[Tensor, Tensor]:
            index = index.repeat(draws)
            return scale(view.observe(index)), aux.images(index)

        with task(f"{self.name} {view.label}".strip(), 1):
            inverse = fit_linear(read, train, (scale(view.observe(valid)), aux.images(valid)), mean, view.seed)
            return torch.cat([inverse(scale(part)) for part in view.z.split(256)])
