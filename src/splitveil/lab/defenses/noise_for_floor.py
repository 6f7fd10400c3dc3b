"""Noise just strong enough for a floor under the reconstruction error (dFIL; Maeng et al., NeurIPS 2023)."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Sample
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.metrics.bounds import ScoreFunction, certificate, gaussian_score, noise_score, sigma_for_floor
from splitveil.lab.metrics.bounds.prior import SMOOTHING
from splitveil.lab.training import infer

PROBED, PROBES = 64, 16
"""Images and random directions that the Fisher information is found from."""
ERRORS = 2.0
"""Standard errors of the estimated information that are added to it."""
MOST = 4096
"""Elements of an image beyond which its covariance is not estimated."""
UNSOLVED = 1.0
"""Ratio of noise to signal until a sample has been studied."""


class NoiseForFloor(GaussianNoise):
    """Clipped Gaussian noise whose size is solved for: a mean squared error that adversaries do not get below.

    The features' norm is clipped as in ``noise``. Before training, and again for the edge that training leaves behind,
    the Fisher information of the clipped features is measured at 64 training images, two standard errors are added, and
    ``d / (E[Tr I] + Tr S) = mse`` is solved for sigma (``1 / dFIL = mse`` for unbiased adversaries). Neither scale nor
    any other weight of the edge can gain: the floor holds for the edge as it is.

    What the floor holds for: the mean over the data, never a single image; one answer to each input; pixels in [0, 1].
    ``any`` speaks of every adversary, of images blurred by `blur`, and rests on an estimate of what the data tell by
    themselves (a Gaussian of their covariance, optimistic; above 4096 elements what holds for all data, d / blur^2).
    ``unbiased`` binds only adversaries without an idea of usual images, which real ones have: they do get below it.
    See `splitveil.lab.metrics.bounds.dfil`; an audit prints the floor again, from images of its own.

    Args:
        mse: the floor, per element: 0.005 is 23 dB.
        adversary: any or unbiased.
        clip: bound of the L2 norm of one sample's z, in median norms.
        blur: standard deviation of the blur, in units of the pixel range. An adversary who reads nothing is not much
            worse than blur^2 (photographs), so that is about as far as a floor for ``any`` goes.

    Raises:
        InputError: an option out of range; when it studies, a floor that no noise can guarantee.
    """

    name: ClassVar[str] = "noise_for_floor"
    measures: ClassVar[bool] = True
    factor: Tensor

    kept_as: ClassVar[Mapping[str, str]] = {"adversary": "whom"}

    def __init__(
        self, *, mse: float = 0.005, adversary: str = "any", clip: float = 1.0, blur: float = SMOOTHING
    ) -> None:
        super().__init__(clip=clip)
        if adversary not in ("any", "unbiased"):
            raise InputError(f"expected adversary any or unbiased, got {adversary!r}; use noise_for_floor:mse=0.005.")
        if not (0 < mse < math.inf and 0 < blur < math.inf):
            raise InputError(f"expected mse and blur above 0, got {mse} and {blur}; use noise_for_floor:mse=0.005.")
        self.mse, self.whom, self.blur = float(mse), adversary, float(blur)
        self.register_buffer("factor", torch.tensor(UNSOLVED))
        self._kept: tuple[Sample, ScoreFunction] | None = None

    def study(self, split: Split, sample: Sample) -> None:
        d = sample.x[0].numel()
        images = sample.x if d <= MOST else sample.x[:PROBED]
        score = gaussian_score(images, smoothing=self.blur) if d <= MOST else noise_score(d, self.blur)
        self._kept = sample, score
        self._solve(split.edge, *self._kept)

    def finish(self, split: Split) -> Split:
        """The floor for the edge as it is now; the images are let go."""
        if self._kept is not None:
            self._solve(split.edge, *self._kept)
        self._kept = None
        return split

    def _ratio(self) -> float:
        return float(self.factor)

    def _strength(self, z: Tensor) -> Tensor:
        strength: Tensor = self.factor * self.radius / z[0].numel() ** 0.5
        return strength

    def _solve(self, edge: nn.Module, sample: Sample, score: ScoreFunction) -> None:
        device = next((p.device for p in edge.parameters()), torch.device("cpu"))
        edge.eval()
        # The same images in the same portions as `protect` calibrates with: the clip is then the one measured here.
        z = infer(edge, sample.x.split(250))
        self.calibrate(z)
        self.factor.fill_(UNSOLVED)
        x, unit = sample.x[:PROBED].to(device), float(self._strength(z))

        def clipped(x: Tensor) -> Tensor:
            sent: Tensor = self.mean(edge(x))
            return sent

        if not unit > 0:
            raise InputError("expected features that are not all 0, got a silent cut; choose another one.")
        used = score if self.whom == "any" else None
        found = sigma_for_floor(clipped, x, self.mse, score=used, pattern=unit, probes=PROBES, seed=sample.seed)
        told = certificate(clipped, x, unit, score=score, probes=PROBES, seed=sample.seed)
        if told.trace and told.trace_error:
            found *= math.sqrt(1 + ERRORS * told.trace_error / told.trace)
        self.factor.fill_(found)
