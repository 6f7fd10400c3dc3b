"""What changes the features before they leave the device, one file a paper."""

from typing import TYPE_CHECKING

from splitveil.registry import Registry

if TYPE_CHECKING:
    from splitveil.defenses.base import Defense

__all__ = ["DEFENSES"]

DEFENSES: "Registry[Defense]" = Registry(
    "defense",
    {
        "none": "splitveil.defenses.none:Undefended",
        "noise": "splitveil.defenses.noise:GaussianNoise",
        "laplace": "splitveil.defenses.noise:LaplaceNoise",
        "dropout": "splitveil.defenses.dropout:Dropout",
        "siftfunnel": "splitveil.defenses.siftfunnel:SiftFunnel",
        "label_smoothing": "splitveil.defenses.label_smoothing:LabelSmoothing",
        "nopeek": "splitveil.defenses.nopeek:NoPeek",
        "adversarial": "splitveil.defenses.adversarial:AdversarialLearning",
        "vib": "splitveil.defenses.vib:VariationalBottleneck",
        "cloak": "splitveil.defenses.cloak:Cloak",
        "patrol": "splitveil.defenses.patrol:Patrol",
        "pripro": "splitveil.defenses.pripro:PriPro",
        "shredder": "splitveil.defenses.shredder:Shredder",
        "privynet": "splitveil.defenses.privynet:PrivyNet",
        "noise_for_floor": "splitveil.defenses.noise_for_floor:NoiseForFloor",
        "cem": "splitveil.defenses.cem:ConditionalEntropy",
        "disco": "splitveil.defenses.disco:DISCO",
        "ensembler": "splitveil.defenses.ensembler:Ensembler",
        "infoscissors": "splitveil.defenses.infoscissors:InfoScissors",
        "bottleneck": "splitveil.defenses.bottleneck:Bottleneck",
        "distillation": "splitveil.defenses.distillation:Distillation",
        "top_k": "splitveil.defenses.top_k:TopK",
        "veil": "splitveil.defenses.veil:Veil",
        "chain": "splitveil.defenses.chain:Chain",
    },
)
