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
    },
)
