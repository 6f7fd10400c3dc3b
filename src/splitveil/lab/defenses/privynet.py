"""PrivyNet (Li et al. 2017, arXiv 1709.06161): a pretrained edge that sends a secret choice of its channels."""

import hashlib
import hmac
import secrets
from typing import ClassVar

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.cut.grafted import graft
from splitveil.lab.defenses.base import Defense, Sample
from splitveil.lab.defenses.parts.channels import Selection, fisher_utility, reconstruction_privacy
from splitveil.lab.training import infer

LEAST = 4
"""Channels that a derived choice sends at least."""
SENT = 1 / 4
"""Of the cut's channels."""
STUDIED = 512
"""Images that channels are reconstructed from."""
CHOICES = ("supervised", "random", "useful")


class PrivyNet(Defense):
    """A few channels of an edge half that is pretrained and stays as it is; which ones differs from device to device.

    The share `drop_useless` of the channels, those with the lowest Fisher utility (`channels.fisher_utility`), goes
    first; then `drop_leaky` of all channels, those of the others whose reconstruction by themselves is best
    (`channels.reconstruction_privacy`). Among the survivors a key chooses `keep`, order included. Only these cross. The
    cloud begins with a 1x1 convolution back to all channels (linear for flat features), freshly drawn, and learns on
    what is released (our reading; the paper trains a new cloud net).

    The choice is state of the edge half alone. It is diversity rather than secrecy: the edge is pretrained, so whoever
    has it too can tell channels by their statistics or by what the cloud learned to do with them.

    Args:
        keep: channels sent; 0 is a quarter of the cut's, at least 4.
        drop_useless: share of the channels.
        drop_leaky: share of the channels.
        choice: ``supervised`` as above; ``random`` drops nothing first; ``useful`` takes the most useful of the
            survivors, the same on every device.
        key: any text or number that repeats the choice; None draws a fresh one. It is in neither `repr` nor any file,
            for the cloud reads those: a bundle brings back the choice, not the key.

    Raises:
        InputError: an option out of range; a cut of tokens, or with too few channels, when installed.
    """

    name: ClassVar[str] = "privynet"
    trains: ClassVar[frozenset[str]] = frozenset({"cloud"})

    def __init__(
        self,
        *,
        keep: int = 0,
        drop_useless: float = 0.25,
        drop_leaky: float = 0.25,
        choice: str = "supervised",
        key: str | int | None = None,
    ) -> None:
        super().__init__()
        if not (keep >= 0 and drop_useless >= 0 and drop_leaky >= 0 and drop_useless + drop_leaky < 1):
            raise InputError(
                f"expected keep >= 0 and shares of at least 0, together below 1, got {keep}, {drop_useless}, "
                f"{drop_leaky}; use privynet:keep=8,drop_useless=0.25,drop_leaky=0.25."
            )
        if choice not in CHOICES:
            raise InputError(f"expected choice {', '.join(CHOICES)}, got {choice!r}; use privynet:choice=supervised.")
        self.keep, self.choice = keep, choice
        self.drop_useless, self.drop_leaky = float(drop_useless), float(drop_leaky)
        self._key = secrets.token_bytes(32) if key is None else str(key).encode()
        # The whole edge half, from installation to study; in a tuple, so that it is no part of the defence.
        self._whole: tuple[nn.Module, Selection] | None = None

    def install(self, split: Split) -> Split:
        shape = split.cut.shape
        if len(shape) not in (1, 3):
            raise InputError(f"expected channels (C, h, w) or features (C,), got {shape}; cut outside the transformer.")
        channels = shape[0]
        keep = self.keep or min(channels, max(LEAST, round(SENT * channels)))
        left = channels - sum(self._dropped(channels))
        if keep > left:
            raise InputError(
                f"expected keep of at most {left}, what is left of {channels} channels, got {keep}; "
                f"use privynet:keep={left}, or drop less."
            )
        expansion = nn.Conv2d(keep, channels, 1) if len(shape) == 3 else nn.Linear(keep, channels)
        selection = Selection(torch.arange(keep))
        self._whole = split.edge, selection
        return graft(split, selection, expansion)

    def study(self, split: Split, sample: Sample) -> None:
        if self._whole is None:
            raise InputError("expected a split with a selection of channels; install the defence in it first.")
        (edge, selection), self._whole = self._whole, None
        index = selection.get_buffer("index")
        z = infer(edge, sample.x.split(250))
        index.copy_(self.chosen(z, sample.x, sample.y, len(index)))

    def chosen(self, z: Tensor, x: Tensor, y: Tensor, keep: int) -> Tensor:
        """The channels that are sent, in order: (keep,).

        Args:
            z: (M, C, h, w) or (M, C), all channels.
            x: (M, C, H, W) in [0, 1].
            y: (M,).
            keep: how many.
        """
        channels = range(z.shape[1])
        if self.choice == "random":
            return torch.tensor(self._ordered(list(channels))[:keep])
        useless, leaky = self._dropped(len(channels))
        utility = fisher_utility(z, y)
        useful = utility.argsort(descending=True, stable=True)[: len(channels) - useless]
        if leaky:
            told = reconstruction_privacy(z[:STUDIED], x[:STUDIED])[useful]
            quiet = torch.ones(len(useful), dtype=torch.bool, device=useful.device)
            quiet[told.topk(leaky).indices] = False
            useful = useful[quiet]
        if self.choice == "supervised":
            useful = torch.tensor(self._ordered(useful.tolist()))
        return useful[:keep]

    def _dropped(self, channels: int) -> tuple[int, int]:
        """How many are useless, how many leaky."""
        if self.choice == "random":
            return 0, 0
        return int(self.drop_useless * channels), int(self.drop_leaky * channels)

    def _ordered(self, channels: list[int]) -> list[int]:
        """In an order that only the key tells."""

        def place(channel: int) -> bytes:
            return hmac.digest(self._key, str(channel).encode(), hashlib.sha256)

        return sorted(channels, key=place)
