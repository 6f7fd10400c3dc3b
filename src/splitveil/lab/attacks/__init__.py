"""What an adversary does with features, one file a paper or idea."""

from typing import TYPE_CHECKING

from splitveil.core.registry import Registry

if TYPE_CHECKING:
    from splitveil.lab.attacks.base import Threat

__all__ = ["ATTACKS"]

ATTACKS: "Registry[Threat]" = Registry(
    "attack",
    {
        "mean": "splitveil.lab.attacks.floors:MeanImage",
        "class_mean": "splitveil.lab.attacks.floors:ClassMean",
        "nearest": "splitveil.lab.attacks.floors:NearestAux",
        "linear": "splitveil.lab.attacks.linear:Linear",
        "decoder": "splitveil.lab.attacks.decoder:InverseNetwork",
        "mle": "splitveil.lab.attacks.mle:MaximumLikelihood",
        "shadow": "splitveil.lab.attacks.shadow:Shadow",
        "deep_prior": "splitveil.lab.attacks.deep_prior:DeepPrior",
        "glass": "splitveil.lab.attacks.glass:Glass",
        "flow": "splitveil.lab.attacks.flow:FlowMatching",
        "positions": "splitveil.lab.attacks.positions:Positions",
        "canonical": "splitveil.lab.attacks.canonical:Canonical",
        "dual": "splitveil.lab.attacks.dual:Dual",
        "repeat": "splitveil.lab.attacks.repeat:Repeat",
        "law": "splitveil.lab.attacks.law:ByLaw",
        "clip": "splitveil.lab.attacks.clip:Clip",
        "attribute": "splitveil.lab.attacks.attribute:AttributeInference",
        "completion": "splitveil.lab.attacks.completion:ModelCompletion",
    },
)
