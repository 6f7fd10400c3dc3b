"""What an adversary does with features, one file a paper or idea."""

from typing import TYPE_CHECKING

from splitveil.registry import Registry

if TYPE_CHECKING:
    from splitveil.attacks.base import Threat

__all__ = ["ATTACKS"]

ATTACKS: "Registry[Threat]" = Registry(
    "attack",
    {
        "mean": "splitveil.attacks.baseline:MeanImage",
        "class_mean": "splitveil.attacks.baseline:ClassMean",
        "nearest": "splitveil.attacks.baseline:NearestAux",
        "linear": "splitveil.attacks.linear:Linear",
        "decoder": "splitveil.attacks.inverse_network:InverseNetwork",
        "mle": "splitveil.attacks.mle:MaximumLikelihood",
        "shadow": "splitveil.attacks.shadow:Shadow",
        "deep_prior": "splitveil.attacks.deep_prior:DeepPrior",
        "glass": "splitveil.attacks.glass:Glass",
        "flow": "splitveil.attacks.flow:FlowMatching",
        "positions": "splitveil.attacks.positions:Positions",
        "repeat": "splitveil.attacks.combine:Repeat",
        "attribute": "splitveil.attacks.attribute:AttributeInference",
        "completion": "splitveil.attacks.completion:ModelCompletion",
    },
)
