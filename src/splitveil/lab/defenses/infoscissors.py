"""InfoScissors (NeurIPS 2024, arXiv 2306.07973): less of the image and of the label in z, by upper bounds of both."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Adversary, Batch, Sample
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.defenses.parts.rival import Rival


class InfoScissors(GaussianNoise):
    """``x * CLUB(x; z) + y * CLUB(y; z)`` beside the task, and a reward for the failure of the net behind the bound.

    CLUB (Cheng et al. 2020): ``E log q(x|z) - E log q(x'|z)``, the second over all pairs of the batch. q(x|z) is a
    Gaussian about the image that a co-trained net makes of z, with the pixels' variance on training images; q(y|z) is
    its label head; both learn by maximum likelihood in every step. Images count per pixel, so that one weight serves
    images of any size: about 1 where the guess is the image, 0 where it does not depend on it. It is an upper bound
    only as far as q is right; what q has not learned is not in it.

    Our readings: each estimate ends at 0, below which the edge would only learn to fool this one net without end; the
    adversarial part is ``adversarial * max(1 - error, 0)``, the net's squared error in units of that variance; the
    noise is that of ``noise``, clipped, so that scaling z buys nothing. In the paper the answer is made on the device;
    here the cloud makes it, so that what is cut of the label is cut of the task: keep `y` small.

    Args:
        x: weight of the bound on the image.
        y: weight of the bound on the label.
        adversarial: weight of the reward for the net's error.
        sigma: noise-to-signal ratio, as for ``noise``; 0 adds none.
        clip: as for ``noise``.

    Raises:
        InputError: an option out of range.
    """

    name: ClassVar[str] = "infoscissors"
    variance: Tensor

    def __init__(
        self, *, x: float = 1.0, y: float = 0.05, adversarial: float = 0.5, sigma: float = 0.1, clip: float = 1.0
    ) -> None:
        super().__init__(sigma=sigma, clip=clip)
        if min(x, y, adversarial) < 0:
            raise InputError(f"expected weights of at least 0, got {x}, {y}, {adversarial}; use infoscissors:x=1.")
        self.x, self.y, self.adversarial = float(x), float(y), float(adversarial)
        self.register_buffer("variance", torch.tensor(1 / 12))

    def study(self, split: Split, sample: Sample) -> None:
        self.variance.copy_(sample.x.var(0, unbiased=False).mean().clamp_min(1e-12))

    def adversary(self, cut: tuple[int, ...], image: tuple[int, int, int], classes: int) -> Adversary | None:
        return Rival(cut, image, classes)

    def penalty(self, batch: Batch) -> Tensor:
        if batch.guess is None:
            return super().penalty(batch)
        image, label = batch.guess(batch.z)
        image = image.float()
        found = self.x * F.relu(image_bound(image, batch.x, self.variance))
        if self.adversarial:
            found = found + self.adversarial * F.relu(1 - F.mse_loss(image, batch.x) / self.variance)
        if self.y and label is not None:
            found = found + self.y * F.relu(label_bound(label.float(), batch.y))
        return found


def image_bound(guess: Tensor, x: Tensor, variance: Tensor | float) -> Tensor:
    """CLUB of the image in nats per pixel, q Gaussian about `guess` with this variance; all pairs of the batch.

    ``mean_ij |x_j - g_i|^2 / 2v - mean_i |x_i - g_i|^2 / 2v``, which is the covariance of guess and image over v.

    Args:
        guess: (N, C, H, W).
        x: (N, C, H, W).
        variance: of q, of one pixel.
    """
    return (guess * (x - x.mean(0))).mean() / variance


def label_bound(logits: Tensor, y: Tensor) -> Tensor:
    """CLUB of the label in nats: ``mean_i log q(y_i|z_i) - mean_ij log q(y_j|z_i)``.

    Args:
        logits: (N, K), of q.
        y: (N,).
    """
    log = F.log_softmax(logits, 1)
    shares = F.one_hot(y, logits.shape[1]).to(log).mean(0)
    return log.gather(1, y[:, None]).mean() - (log @ shares).mean()
