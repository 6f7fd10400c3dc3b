"""A trained split as tensors by name, and made of them again."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from splitveil.lab.comparing.setting import Setting
from splitveil.lab.cut import Split
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.restoring.weights import assembled
from splitveil.wire.codecs import CODECS

PARTS = ("edge", "cloud", "defense")


def weights_of(protected: Protected) -> dict[str, Tensor]:
    """Of all parts, and what its codec was fixed to."""
    tensors = {f"{part}.{k}": v for part, m in protected.parts().items() for k, v in m.state_dict().items()}
    tensors |= {f"codec.{k}": torch.tensor(v) for k, v in protected.codec.state().items()}
    return {k: v.contiguous().clone() for k, v in tensors.items()}


def restored(start: Split, setting: Setting, weights: Mapping[str, Tensor], epochs: int) -> Protected:
    """The trained split. start: the halves that its training began with, left as they are."""
    kept = {part: _own(weights, part) for part in PARTS}
    codec = CODECS.build(setting.codec).restore({k: v.tolist() for k, v in _own(weights, "codec").items()})
    return assembled(copy.deepcopy(start), DEFENSES.build(setting.defense), codec, kept, epochs)


def _own(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
