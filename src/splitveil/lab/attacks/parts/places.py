"""Features row by row, beside the part of the image that lies about the same place."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.lab.attacks.parts.features import map_shape
from splitveil.lab.attacks.parts.ridge import ridge_weights
from splitveil.lab.attacks.view import Aux

ROWS, ASIDE_ROWS = 24_000, 6_000
"""Places that are looked at, of images to learn from and of images set aside."""
IMAGES, ASIDE_IMAGES = 1024, 256
WINDOW, WHOLE = 5, 8
"""Side of a part of the image in cells of the features' grid; that of the shrunk image where there is no grid."""
PENALTIES = (1e-5, 1e-2, 1.0)


class Places(NamedTuple):
    """Rows of features and of what images show there; those from `aside` on are of images set aside.

    z: (R, c) float32; parts: (R, p) float32.
    """

    z: Tensor
    parts: Tensor
    aside: int


def in_rows(z: Tensor) -> Tensor:
    """Channels last: maps (N, c, h, w) -> (N, h, w, c); tokens (N, T, d) and flat features (N, D) are so already."""
    return z if z.ndim <= 3 else z.movedim(1, -1)


def in_maps(rows: Tensor) -> Tensor:
    """The inverse of `in_rows`."""
    return rows if rows.ndim <= 3 else rows.movedim(-1, 1)


def parts_of(x: Tensor, features: tuple[int, ...]) -> Tensor:
    """What an image shows about each place of its features. x: (N, C, H, W) -> (N, places, p).

    A class token, and all that lies on no grid, sees the whole image, shrunk.
    """
    _, h, w = map_shape(features)
    places = math.prod(features[1:]) if len(features) != 2 else features[0]
    if places < h * w or h * w == 1:
        whole = F.adaptive_avg_pool2d(x, (min(WHOLE, x.shape[2]), min(WHOLE, x.shape[3]))).flatten(1)
        return whole[:, None].expand(-1, places, -1)
    fine = 2 if x.shape[2] >= 2 * h and x.shape[3] >= 2 * w else 1
    grid = F.pixel_unshuffle(F.adaptive_avg_pool2d(x, (fine * h, fine * w)), fine)
    side = WINDOW // 2
    seen = F.unfold(F.pad(grid, (side,) * 4, mode="replicate"), WINDOW).transpose(1, 2)
    return seen if places == h * w else F.pad(seen, (0, 0, places - h * w, 0))


def places_of(observe: Callable[[Tensor], Tensor], aux: Aux, seed: int, mean: Tensor | float = 0.0) -> Places:
    """A draw of places of the adversary's own images, the images set aside last.

    observe: index (n,) -> features (n, *cut); mean: (C, H, W), subtracted from images.
    """
    held = aux.held_out
    draws = torch.Generator().manual_seed(seed)
    rows, seen, counts = list[Tensor](), list[Tensor](), list[int]()
    for index, most in ((torch.arange(min(len(aux) - len(held), IMAGES)), ROWS), (held[:ASIDE_IMAGES], ASIDE_ROWS)):
        before = sum(map(len, rows))
        for part in index.split(128):
            z = observe(part)
            features = tuple(z.shape[1:])
            cells = in_rows(z).reshape(len(z), -1, z.shape[-1 if z.ndim <= 3 else 1])
            keep = min(1.0, most / (len(index) * cells.shape[1]))
            chosen = (torch.rand(cells.shape[:2], generator=draws) < keep).to(z.device)
            rows.append(cells[chosen].float())
            seen.append(parts_of(aux.images(part) - mean, features)[chosen])
        counts.append(sum(map(len, rows)) - before)
    return Places(torch.cat(rows), torch.cat(seen), counts[0])


def told_by_image(places: Places, targets: Tensor) -> Tensor:
    """What the image tells of `targets` by ridge regression, (R, c) -> (R, c); rows set aside choose the penalty."""
    a = torch.cat([places.parts, places.parts.new_ones(len(places.parts), 1)], 1).double()
    b, first = targets.double(), slice(0, places.aside)
    best, least = torch.zeros_like(b), math.inf
    for weights in ridge_weights(a[first].T @ a[first], a[first].T @ b[first], PENALTIES, constant=True):
        told = a @ weights
        error = float((told - b)[places.aside :].square().mean())
        if error < least:
            best, least = told, error
    return best.float()


def share_told(targets: Tensor, told: Tensor) -> Tensor:
    """R^2 of each column, at least 0; (R, c) -> (c,). Nothing is told of what never changes."""
    varying = (targets - targets.mean(0)).square().mean(0)
    missed = (targets - told).square().mean(0)
    return torch.where(varying > 0, 1 - missed / varying.clamp_min(1e-30), 0.0).clamp_min(0)
