"""Self-checks: reasons why a number cannot be trusted. Each says when it is raised and what it means."""

import math
from collections.abc import Mapping

from torch import Tensor

FEW = 20
BELOW_FLOOR_DB = 0.5

EXPLANATIONS = {
    "not finite": "Raised if an attack returned NaN or infinity. Its numbers mean nothing; the attack has diverged.",
    "few images": f"Raised if fewer than {FEW} private images were attacked. The 5 % tail is then one lucky image.",
    "below the floor": (
        f"Raised if an attack is more than {BELOW_FLOOR_DB} dB weaker than the mean image, which needs no features. "
        "The attack has failed on this cut; a low number from it is no evidence of privacy."
    ),
}


def check_row(attack: str, scores: Mapping[str, Tensor], mean_floor: float | None, *, finite: bool) -> list[str]:
    """Reasons not to trust one attack's scores; empty when there are none.

    Args:
        attack: name; the floors themselves are never held against the mean image.
        scores: metric -> (N,).
        mean_floor: PSNR of the mean image at this cut in dB, None where it did not run.
        finite: whether the guess was finite everywhere.
    """
    reasons = []
    psnr = scores["psnr"].mean().item()
    if not finite or not all(math.isfinite(v.sum().item()) for v in scores.values()):
        reasons.append("not finite: the attack returned NaN or infinite pixels")
    if len(scores["psnr"]) < FEW:
        reasons.append(f"few images: {len(scores['psnr'])} private images, expected at least {FEW}")
    if (
        mean_floor is not None
        and attack not in ("mean", "class_mean", "nearest")
        and psnr < mean_floor - BELOW_FLOOR_DB
    ):
        reasons.append(f"below the floor: {psnr:.1f} dB where the mean image has {mean_floor:.1f} dB")
    return reasons
