"""An independent classifier as the judge of reconstructions: what it still sees in them."""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.training import IndexBatches, fit

CHUNK = 256
EPOCHS, STEPS, RATE, BATCH = 5, 100, 1e-3, 64


@dataclass(frozen=True, slots=True)
class Judge:
    """A classifier that had no part in making the reconstructions; put in eval mode.

    Attributes:
        net: (N, C, H, W) in [0, 1] -> logits (N, K).
        name: printed with every number it gives.
        weights: where they come from, in words.
        adaptive: an audit asks it again after it has learned from what each attack makes of the adversary's own images.
    """

    net: nn.Module
    name: str
    weights: str = ""
    adaptive: bool = False

    def __post_init__(self) -> None:
        self.net.eval()

    def probabilities(self, x: Tensor) -> Tensor:
        """(N, K) float64 on the processor, rows sum to 1. x: (N, C, H, W) in [0, 1].

        Raises:
            InputError: its answer is not one row of logits an image.
        """
        with Accelerator.chosen().used(self.net) as where, torch.no_grad():
            logits = torch.cat([self.net(part.to(where.device)).cpu() for part in x.split(CHUNK)])
        if logits.ndim != 2 or len(logits) != len(x):
            raise InputError(
                f"expected logits ({len(x)}, K) from the judge {self.name}, got {tuple(logits.shape)}; "
                "give a classifier of images."
            )
        return logits.double().softmax(1)


def correct(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Whether the likeliest class is the true one. (N, K) and (N,) int64 -> (N,) 0 or 1, float64."""
    return (_checked(probabilities, labels).argmax(1) == labels).double()


def confidence(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Probability of the true class. (N, K) and (N,) int64 -> (N,) in [0, 1]."""
    return _checked(probabilities, labels).gather(1, labels[:, None])[:, 0]


def agreement(clean: Tensor, guessed: Tensor) -> Tensor:
    """Whether the judge names the same class for the guess as for the input, right or wrong.

    Args:
        clean: (N, K), probabilities on the inputs.
        guessed: (N, K), probabilities on the guesses.

    Returns:
        (N,) 0 or 1, float64.

    Raises:
        InputError: different shapes.
    """
    if clean.shape != guessed.shape:
        raise InputError(
            f"expected probabilities of one shape, got {tuple(clean.shape)} and {tuple(guessed.shape)}; "
            "ask the same judge about as many guesses as inputs."
        )
    return (clean.argmax(1) == guessed.argmax(1)).double()


def adapt(
    judge: Judge, guesses: Tensor, labels: Tensor, *, epochs: int = EPOCHS, lr: float = RATE, seed: int = 0
) -> Judge:
    """A copy of `judge`, fine-tuned to read reconstructions: the adaptive judge.

    A judge of clean images is thrown by blur that a person, or a net used to it, sees through; so its answer is the
    lower one. Normalisation layers keep their statistics.

    Args:
        judge: left as it is.
        guesses: (M, C, H, W) in [0, 1], reconstructions of the adversary's own images, never of private ones.
        labels: (M,) int64, of these images.
        epochs: passes over them, at least; 100 steps where these are fewer.
        lr: peak learning rate.
        seed: of the shuffling.

    Raises:
        InputError: no images, or not one label each.
        TrainingError: training diverged.
    """
    if not len(guesses) or labels.shape != (len(guesses),):
        raise InputError(
            f"expected guesses (M, C, H, W) with labels (M,), got {tuple(guesses.shape)} and {tuple(labels.shape)}; "
            "give one label an image."
        )
    device = Accelerator.chosen().device
    learner, guesses, labels = _Learner(copy.deepcopy(judge.net)).to(device), guesses.to(device), labels.to(device)
    batches = IndexBatches(len(guesses), BATCH, lambda index, _: (guesses[index], labels[index]))
    epochs = max(epochs, math.ceil(STEPS / len(batches)))
    fit(learner, batches, epochs=epochs, lr=lr, seed=seed, precision="32-true", what=f"adapting {judge.name}")
    learner.net.requires_grad_(False)
    return Judge(learner.net, f"adapted {judge.name}", f"{judge.weights}, fine-tuned on {len(guesses):,} guesses")


class _Learner(nn.Module):
    """Cross entropy of a net that stays in eval mode: a handful of blurred images is no ground for new statistics."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.requires_grad_(True)

    def train(self, mode: bool = True) -> "_Learner":
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.net(x).float(), y)


def _checked(probabilities: Tensor, labels: Tensor) -> Tensor:
    if probabilities.ndim != 2 or labels.shape != (len(probabilities),):
        raise InputError(
            f"expected probabilities (N, K) and labels (N,), got {tuple(probabilities.shape)} and "
            f"{tuple(labels.shape)}; give one label an image."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < probabilities.shape[1]:
        raise InputError(
            f"expected labels from 0 to {probabilities.shape[1] - 1}, got {int(labels.min())} to {int(labels.max())}; "
            "take a judge of the same classes."
        )
    return probabilities
