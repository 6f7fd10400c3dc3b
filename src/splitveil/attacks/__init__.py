"""What an adversary does with features, one file a paper or idea."""

from typing import TYPE_CHECKING

from splitveil.registry import Registry

if TYPE_CHECKING:
    from splitveil.attacks.base import Attack

__all__ = ["ATTACKS"]

ATTACKS: "Registry[Attack]" = Registry(
    "attack",
    {
        "mean": "splitveil.attacks.baseline:MeanImage",
        "class_mean": "splitveil.attacks.baseline:ClassMean",
        "nearest": "splitveil.attacks.baseline:NearestAux",
        "decoder": "splitveil.attacks.decoder:InverseNetwork",
        "mle": "splitveil.attacks.mle:MaximumLikelihood",
    },
)
