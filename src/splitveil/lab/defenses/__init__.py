"""What changes the features before they leave the device, one file a paper."""

from typing import TYPE_CHECKING

from splitveil.core.registry import Registry

if TYPE_CHECKING:
    from splitveil.lab.defenses.base import Defense

__all__ = ["DEFENSES"]

DEFENSES: "Registry[Defense]" = Registry(
    "defense",
    {
        "none": "splitveil.lab.defenses.none:Undefended",
        "noise": "splitveil.lab.defenses.noise:GaussianNoise",
        "laplace": "splitveil.lab.defenses.noise:LaplaceNoise",
        "dropout": "splitveil.lab.defenses.dropout:Dropout",
        "siftfunnel": "splitveil.lab.defenses.siftfunnel:SiftFunnel",
        "label_smoothing": "splitveil.lab.defenses.label_smoothing:LabelSmoothing",
        "nopeek": "splitveil.lab.defenses.nopeek:NoPeek",
        "adversarial": "splitveil.lab.defenses.adversarial:AdversarialLearning",
        "vib": "splitveil.lab.defenses.vib:VariationalBottleneck",
        "cloak": "splitveil.lab.defenses.cloak:Cloak",
        "patrol": "splitveil.lab.defenses.patrol:Patrol",
        "pripro": "splitveil.lab.defenses.pripro:PriPro",
        "shredder": "splitveil.lab.defenses.shredder:Shredder",
        "privynet": "splitveil.lab.defenses.privynet:PrivyNet",
        "noise_for_floor": "splitveil.lab.defenses.noise_for_floor:NoiseForFloor",
        "cem": "splitveil.lab.defenses.cem:ConditionalEntropy",
        "disco": "splitveil.lab.defenses.disco:DISCO",
        "ensembler": "splitveil.lab.defenses.ensembler:Ensembler",
        "infoscissors": "splitveil.lab.defenses.infoscissors:InfoScissors",
        "bottleneck": "splitveil.lab.defenses.bottleneck:Bottleneck",
        "distillation": "splitveil.lab.defenses.distillation:Distillation",
        "top_k": "splitveil.lab.defenses.top_k:TopK",
        "veil": "splitveil.lab.defenses.veil:Veil",
        "chain": "splitveil.lab.defenses.chain:Chain",
    },
)
