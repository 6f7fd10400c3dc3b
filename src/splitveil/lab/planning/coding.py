"""A trained split with another codec, and the audit of it as a job: one training serves all codecs."""

from pathlib import Path

import torch
from torch import Tensor

from splitveil.lab.auditing.question import Question
from splitveil.lab.comparing.cards import alone, told
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.weights import restored
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.seeds import derive
from splitveil.lab.store import Kept
from splitveil.wire.codecs import CODECS


def coded(protected: Protected, codec: str, images: Images, seed: int) -> Protected:
    """The same split with a codec fixed on these training images. seed: of the defence's noise on them."""
    if codec == "raw":
        return protected
    x = as_floats(torch.from_numpy(images.x))
    torch.manual_seed(derive(seed, "codec"))
    with torch.no_grad():
        z = torch.cat([protected.defense(protected.split.edge(part)) for part in x.split(250)])
    protected.codec = CODECS.build(codec).calibrate(z)
    return protected.eval()


def attacked_coded(
    start: Split, setting: Setting, weights: dict[str, Tensor], epochs: int, codec: str, images: Images, trained: int,
    named: tuple[str, str], data: Dataset, question: Question, seed: int, units: Path, folder: Path | None,
) -> Kept:  # fmt: skip
    """The card of one trained split; arguments as of `coded` and of `splitveil.lab.comparing.cards.attacked`."""
    protected = coded(restored(start, setting, weights, epochs), codec, images, trained)
    return told(alone(protected, *named), data, question, seed, units, folder)
