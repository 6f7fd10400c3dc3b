"""`Audit`: the card, per-image scores and sample pictures of an audit, and how they are written to a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from splitveil.records import Card, write_atomically


@dataclass(frozen=True, slots=True)
class Audit:
    """A card with what lies behind it.

    Attributes:
        card: the flat record.
        scores: metric -> (N,) for each row of the card.
        samples: guesses (k, C, H, W) uint8 for each row of the card; k may be 0.
        inputs: the k sample images (k, C, H, W) uint8.
        index: their positions in the test part, (k,).
        exposed: for each row of the card the images that leak most by PSNR, most first: positions in the test part
            (j,), inputs and guesses (j, C, H, W) uint8; j is 5, or 0 where no picture is kept and in a worst case that
            is not chosen by PSNR.
        hits: (n,) bool for each label row of the card.
    """

    card: Card
    scores: tuple[Mapping[str, Tensor], ...]
    samples: tuple[Tensor, ...]
    inputs: Tensor
    index: Tensor
    exposed: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()
    hits: tuple[Tensor, ...] = ()

    def save(self, folder: Path) -> None:
        """Write ``card.json``, ``scores.safetensors`` and, where there are sample images, ``samples.safetensors``.

        ``rowNNN.psnr`` holds the scores of a row, ``labelNNN.hit`` those of a label row; ``rowNNN`` its guesses for the
        sample images ``input`` at ``index``; ``rowNNN.worst``, ``rowNNN.worst_input`` and ``rowNNN.worst_index`` the
        images that it leaks most.
        """
        scores = {f"row{i:03d}.{k}": v.contiguous() for i, s in enumerate(self.scores) for k, v in s.items()}
        scores |= {f"label{i:03d}.hit": v.contiguous() for i, v in enumerate(self.hits)}
        write_atomically(folder / "scores.safetensors", save(scores))
        if len(self.inputs):
            pictures = {"input": self.inputs.contiguous(), "index": self.index.contiguous()}
            pictures |= {f"row{i:03d}": v.contiguous() for i, v in enumerate(self.samples)}
            for i, (index, inputs, guesses) in enumerate(self.exposed):
                if len(index):
                    parts = {"worst_index": index, "worst_input": inputs, "worst": guesses}
                    pictures |= {f"row{i:03d}.{k}": v.contiguous() for k, v in parts.items()}
            write_atomically(folder / "samples.safetensors", save(pictures))
        self.card.save(folder / "card.json")
