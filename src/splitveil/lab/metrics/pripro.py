"""Privacy accuracy (PA) and privacy index (PI), after PriPro, as pluggable definitions.

PriPro ("Towards Effective Privacy Protection on Edge-Cloud System Running DNN Inference") judges a defence by PA, what
an attacker achieves, and PI, which looks at single inputs. **The paper's exact formulas were not accessible to us.**
What stands here is our reading of its abstract, each function named after what it computes, so that nobody takes one
for the other:

- *PA by judge*: how often an independent classifier reads the private label from the guess; raw, or normalised so that
  0 is chance and 1 what the same classifier achieves on the inputs themselves.
- *PA by matching*: how often the guess is closer to its own input than to any other of a gallery (rank 1).
- *PI*: for each input the share of the judge's confidence in the truth, above chance, that the guess took away.
  "Single input" is honoured by computing it for each and by the 5 % quantile: the users who are protected worst.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from splitveil.core.errors import InputError

QUANTILE = 0.05
CHUNK = 256

Distance = Callable[[Tensor, Tensor], Tensor]
"""Queries (n, ...) and gallery (m, ...) -> (n, m), smaller is nearer."""


def normalised(pa: Tensor, *, chance: float, clean: float) -> Tensor:
    """``(PA - chance) / (clean - chance)``: 0 is chance, 1 no protection; below 0 is worse than guessing.

    It is affine, so the mean of normalised hits is the normalised PA.

    Args:
        pa: any shape, hits of single images or their mean.
        chance: PA of an adversary who sees nothing, such as the share of the commonest label.
        clean: PA of the same judge on the inputs.

    Raises:
        InputError: `clean` is not above `chance`; such a judge can say nothing.
    """
    if not 0 <= chance < clean <= 1:
        raise InputError(
            f"expected 0 <= chance < accuracy on clean images <= 1, got {chance:.3f} and {clean:.3f}; "
            "take a judge that knows these classes."
        )
    return (pa.double() - chance) / (clean - chance)


def pa_by_matching(guesses: Tensor, inputs: Tensor, *, distance: Distance | None = None) -> Tensor:
    """Whether each guess is closer to its own input than to all others: the chance of rank 1 when ties are drawn.

    Chance is 1/N, so the value depends on the gallery's size: print it beside.

    Args:
        guesses: (N, ...), guess i is of input i; images, or embeddings with a distance of these.
        inputs: (N, ...), the gallery.
        distance: pixels when None; see `squared_distance`.

    Returns:
        (N,) float64: 1 for the only nearest, 1/k where k inputs are equally near, 0 otherwise.

    Raises:
        InputError: not one guess an input.
    """
    if len(guesses) != len(inputs) or not len(inputs):
        raise InputError(
            f"expected one guess for each input of the gallery, got {len(guesses)} for {len(inputs)}; give both alike."
        )
    distance = distance or squared_distance
    found = []
    for first, part in zip(range(0, len(guesses), CHUNK), guesses.split(CHUNK), strict=True):
        apart = distance(part, inputs)
        own = apart[torch.arange(len(part)), first + torch.arange(len(part))]
        nearest = apart.min(1).values
        found.append((own <= nearest).double() / (apart <= nearest[:, None]).sum(1))
    return torch.cat(found)


def squared_distance(queries: Tensor, gallery: Tensor) -> Tensor:
    """Mean squared difference of all pairs. (n, ...) and (m, ...) of one shape -> (n, m) float64."""
    a, b = queries.flatten(1).double(), gallery.flatten(1).double()
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"expected queries and gallery of one size, got {a.shape[1]} and {b.shape[1]} numbers; resize one of them."
        )
    # The common mean is taken off first: the matrix product below loses digits to what all rows share.
    centre = b.mean(0)
    return torch.cdist(a - centre, b - centre).square() / a.shape[1]


def privacy_index(guessed: Tensor, clean: Tensor, *, chance: float) -> Tensor:
    """PI of each input: ``1 - (conf(guess) - chance) / (conf(input) - chance)``, within [0, 1]; 1 is full protection.

    Args:
        guessed: (N,), the judge's confidence in the truth on the guesses.
        clean: (N,), the same on the inputs.
        chance: confidence of a judge who knows nothing, 1/K.

    Returns:
        (N,) float64; NaN where the judge is not confident in the truth of the input itself: there is nothing to take
        away, and calling it protected would flatter the defence (our reading).

    Raises:
        InputError: different shapes, or a chance outside (0, 1).
    """
    if guessed.shape != clean.shape or not 0 < chance < 1:
        raise InputError(
            f"expected confidences of one shape and a chance between 0 and 1, got {tuple(guessed.shape)}, "
            f"{tuple(clean.shape)} and {chance}; ask the same judge about guesses and inputs."
        )
    above = clean.double() - chance
    value = (1 - (guessed.double() - chance) / above).clamp(0, 1)
    return torch.where(above > 0, value, math.nan)


def least_protected(pi: Tensor, quantile: float = QUANTILE) -> float:
    """The `quantile` of PI over inputs, NaN left out: one user in twenty has less than that. pi: (N,)."""
    known = pi[~pi.isnan()].double()
    return float(known.quantile(quantile)) if len(known) else math.nan
