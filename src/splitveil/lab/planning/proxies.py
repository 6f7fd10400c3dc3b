"""Cheap estimates of what a choice leaks and how accurate it is: closed form, nothing trained, about a second each."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.records import CHOSEN_BY, LEAKAGE
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.parts.features import ChannelScale
from splitveil.lab.attacks.parts.ridge import ridge_weights
from splitveil.lab.auditing.scoring import scored
from splitveil.lab.data import Images
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_bytes, as_floats
from splitveil.lab.metrics import METRICS
from splitveil.lab.planning.ridge import PENALTIES, centred, dense_maps, local_maps
from splitveil.lab.seeds import derive
from splitveil.wire.codecs import CODECS

WINDOWS = (3, 1)
"""Sides of the local map: hundreds of images make no wider one."""
ROWS = 4000
"""Positions from which the local map is estimated."""
LEAST = 30
NAMES = ("accuracy", *LEAKAGE)


def proxy(protected: Protected, codecs: Sequence[str], images: Images, seed: int) -> dict[str, dict[str, float]]:
    """Codec -> accuracy, ssim, ssim_worst, psnr and psnr_worst of an installed split that nobody trained.

    Leakage is that of the better of two linear decoders on defended, quantised features, on images that they were not
    made from: a window of features for every position, and all features to all pixels. Accuracy is the larger of what
    the installed split answers and of what a linear classifier reads off the features: a funnel that is freshly drawn
    answers nothing before it is trained, but what training can make of it depends on what passes. Noise is drawn as in
    service. Neither number is a measurement of the trained split; `Surrogate` learns what they are worth.

    Args:
        protected: as `protect` leaves it with no epochs.
        codecs: specs; each is calibrated on the features of the images that make the decoders.
        images: two thirds make the decoders, one third judges them.
        seed: of noise and positions.

    Raises:
        InputError: fewer than 30 images.
    """
    if len(images) < LEAST:
        raise InputError(f"expected at least {LEAST} images for the proxies, got {len(images)}; set more aside.")
    where = Accelerator.chosen().with_doubles()
    x, y = as_floats(torch.from_numpy(images.x)).to(where.device), torch.from_numpy(images.y).to(where.device)
    made = 2 * len(x) // 3
    found: dict[str, dict[str, float]] = {}
    with where.used(protected), torch.no_grad():
        h = torch.cat([protected.split.edge(part) for part in x.split(250)])
        for spec in codecs:
            torch.manual_seed(derive(seed, "proxy"))
            z = protected.defense(h)
            codec = CODECS.build(spec).calibrate(z[:made].cpu())
            z = codec.decode(codec.encode(z))
            answers = torch.cat([protected.split.cloud(part) for part in z.split(250)])
            found[spec] = {
                "accuracy": max(float((answers.argmax(1) == y).float().mean()), _probed(z, y, made)),
                **_leakage(z, x, made, seed),
            }
    return found


def tails(scores: Mapping[str, Tensor]) -> dict[str, float]:
    """Means and the means over the 5 % that leak most. scores: ssim and psnr -> (N,)."""
    found: dict[str, float] = {}
    for name in reversed(CHOSEN_BY):
        found |= {name: float(scores[name].mean()), f"{name}_worst": METRICS.build(name).worst(scores[name])}
    return found


def _leakage(z: Tensor, x: Tensor, made: int, seed: int) -> dict[str, float]:
    """z: (N, *cut), x: (N, C, H, W); the first `made` teach."""
    z = ChannelScale(z[:made])(z)
    mean = x[:made].mean(0)
    best = mean.expand_as(x[made:])
    least = float((best - x[made:]).square().mean())
    local = local_maps(z, x, made, [mean], seed, windows=WINDOWS, rows=ROWS)
    for guesses, _ in (*local, *dense_maps(_products(z), x, made)):
        for guess in guesses:
            error = float((guess - x[made:]).square().mean())
            if error < least:
                best, least = guess, error
    return tails(scored(as_bytes(x[made:]).cpu(), best.clamp(0, 1).contiguous().cpu()))


def _probed(z: Tensor, y: Tensor, made: int) -> float:
    """Accuracy of a linear classifier (ridge regression onto the labels) on the other images, its best penalty's."""
    own, others = centred(_products(z), made)
    targets = F.one_hot(y[:made], int(y.max()) + 1).double()
    guesses = [others @ w + targets.mean(0) for w in ridge_weights(own, targets - targets.mean(0), PENALTIES)]
    return max((float((g.argmax(1) == y[made:]).float().mean()) for g in guesses), default=0.0)


def _products(z: Tensor) -> Tensor:
    """(N, N) of features (N, *cut)."""
    flat = z.flatten(1).double()
    return flat @ flat.T
