"""`Audit`: the card, per-image scores and sample pictures of an audit, and how they are written to a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from splitveil.core.records import Card, Finishing, write_atomically


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
        """Write ``card.json``, then ``scores.safetensors`` and, where there are images, ``samples.safetensors``.

        ``rowNNN.psnr`` holds the scores of a row, ``labelNNN.hit`` those of a label row; ``rowNNN`` its guesses for the
        sample images ``input`` at ``index``; ``rowNNN.worst``, ``rowNNN.worst_input`` and ``rowNNN.worst_index`` the
        images that it leaks most.

        Raises:
            OSError: the card could not be written.
            WriteError: the card was, something after it not.
        """
        self.card.save(folder / "card.json")
        after = Finishing(str(folder / "card.json"), "run the same again with --resume")
        with after.writing(folder / "scores.safetensors"):
            self._save_scores(folder / "scores.safetensors")
        if len(self.inputs):
            with after.writing(folder / "samples.safetensors"):
                self._save_samples(folder / "samples.safetensors")
        after.tell()

    def _save_scores(self, path: Path) -> None:
        scores = {f"row{i:03d}.{k}": v.contiguous() for i, s in enumerate(self.scores) for k, v in s.items()}
        scores |= {f"label{i:03d}.hit": v.contiguous() for i, v in enumerate(self.hits)}
        write_atomically(path, save(scores))

    def _save_samples(self, path: Path) -> None:
        pictures = {"input": self.inputs, "index": self.index}
        pictures |= {f"row{i:03d}": v for i, v in enumerate(self.samples)}
        for i, (index, inputs, guesses) in enumerate(self.exposed):
            if len(index):
                parts = {"worst_index": index, "worst_input": inputs, "worst": guesses}
                pictures |= {f"row{i:03d}.{k}": v for k, v in parts.items()}
        # Images may be views of another order of axes, such as height, width, channels.
        write_atomically(path, save({name: v.contiguous() for name, v in pictures.items()}))
