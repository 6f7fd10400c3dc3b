"""`Setting`: what is trained, a defence with its knob turned and a codec."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """A defence and a codec, as the registries read them."""

    defense: str
    codec: str
