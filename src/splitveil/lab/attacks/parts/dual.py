"""Dense ridge regression in its dual form: as many unknowns as there are images, however many features."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.parts.ridge import ridge_weights

PENALTIES = (1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
"""In units of the mean square of an image's features, in rising order until one is worse than the one before."""
MOST = 4096
"""Images that the map rests on at most."""
COLUMNS = 1024
"""Features whose products are summed in float32."""
DEAD = 1e-6

Read = Callable[[Tensor], tuple[Tensor, Tensor]]


class DenseInverse:
    """An affine map from all features to all pixels, fitted to images. z: (N, *cut) -> (N, C, H, W).

    Args:
        read: index (n,) -> (z (n, *cut), x (n, C, H, W)).
        count: images to estimate from; the first `MOST` of them are used.
        valid: z and x of images set aside, which choose the penalty.
    """

    def __init__(self, read: Read, count: int, valid: tuple[Tensor, Tensor]) -> None:
        pairs = [read(index) for index in torch.arange(min(count, MOST)).split(256)]
        z, x = (torch.cat([pair[k] for pair in pairs]) for k in (0, 1))
        del pairs
        flat = z.flatten(1).float()
        spread, self.shift = torch.std_mean(flat, 0)
        self.scale = torch.where(spread > DEAD * spread.median(), 1 / spread.clamp_min(1e-30), 0.0)
        self.own, self.mean = (flat - self.shift) * self.scale, x.mean(0)
        self.target, self.kind = (x - self.mean).flatten(1), Accelerator.of(z).exact
        # By the images' products, w = A'(AA' + r)^-1 B, unless features are fewer: these are the same weights.
        self.few = self.own.shape[1] <= len(self.own)
        square = self._products(self.own.T, self.own.T) if self.few else self._products(self.own, self.own)
        asked = self._asked(valid[0])
        least, self.penalty = math.inf, PENALTIES[-1]
        for penalty in PENALTIES:
            for found in ridge_weights(square, asked, (penalty,)):
                error = float((self._guess(found).clamp(0, 1) - valid[1]).square().mean())
                if error > least:
                    break
                least, self.penalty = error, penalty
            else:
                continue
            break
        self.square = square

    def __call__(self, z: Tensor) -> Tensor:
        found = next(ridge_weights(self.square, self._asked(z), (self.penalty,)), None)
        return self.mean.expand(len(z), *self.mean.shape) if found is None else self._guess(found)

    def _asked(self, z: Tensor) -> Tensor:
        """What the normal equations are solved for, (features or images, N): only as many columns as guesses."""
        flat = (z.flatten(1).float() - self.shift) * self.scale
        return flat.T.to(self.kind) if self.few else self._products(self.own, flat)

    def _guess(self, found: Tensor) -> Tensor:
        """(features or images, N) -> (N, C, H, W)."""
        weights = (self.own @ found.float()).T if self.few else found.float().T
        return self.mean + (weights @ self.target).reshape(-1, *self.mean.shape)

    def _products(self, a: Tensor, b: Tensor) -> Tensor:
        """Sums over columns, (n, D) and (m, D) -> (n, m), in float32 part by part and in doubles between these."""
        total = a.new_zeros(len(a), len(b), dtype=self.kind)
        parts = zip(a.split(COLUMNS, 1), b.split(COLUMNS, 1), strict=True)
        for left, right in parts:
            total += left @ right.T if not self.few else left.to(self.kind) @ right.to(self.kind).T
        return total
