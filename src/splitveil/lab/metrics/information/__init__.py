"""How much information crosses a cut: estimators side by side, each with its cap and its stated range.

No estimate here is an absolute measure of privacy: a deterministic edge lets through infinitely many nats, and what an
estimator prints is what its samples and its critic could find. Print it beside its calibration rows (`calibration`).
"""

from typing import TYPE_CHECKING

from splitveil.core.registry import Registry

if TYPE_CHECKING:
    from splitveil.lab.metrics.information.base import MIEstimate

__all__ = ["ESTIMATORS"]

ESTIMATORS: "Registry[MIEstimate]" = Registry(
    "estimator",
    {
        "mine": "splitveil.lab.metrics.information.mine:mine_estimate",
        "infonce": "splitveil.lab.metrics.information.infonce:infonce_estimate",
        "club": "splitveil.lab.metrics.information.club:club_estimate",
        "ksg": "splitveil.lab.metrics.information.ksg:ksg_estimate",
    },
)
"""``ESTIMATORS.build("mine:steps=100", x=x, z=z, seed=0)`` is an `MIEstimate`."""
