"""Units of an audit, an attack on a configuration each: kept on disk, so that a killed audit goes on where it was."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from splitveil.errors import InputError
from splitveil.records import Row, write_atomically


@dataclass(frozen=True, slots=True)
class Unit:
    """A finished row, its scores (metric -> (N,)) and its guesses for the sample images, (k, C, H, W) uint8."""

    row: Row
    scores: Mapping[str, Tensor]
    samples: Tensor


class Ledger:
    """The finished units of one audit in one folder.

    Args:
        folder: of the audit; None keeps everything in memory.
        run: everything that decides the result; another value is another audit.
        resume: go on with what is there.

    Raises:
        InputError: the folder holds another audit, or any while not resuming.
    """

    def __init__(self, folder: Path | None, run: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = folder / "units" if folder else None
        if folder is None or self.folder is None:
            return
        mark = folder / "run.json"
        if not resume and folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; go on with --resume or give another --out.")
        if mark.exists():
            differing = [k for k, v in json.loads(mark.read_text()).items() if run.get(k) != v]
            if differing:
                raise InputError(
                    f"{folder} holds another audit (it differs in {', '.join(differing)}); give another --out."
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(mark, json.dumps(run, indent=2).encode())

    def workdir(self, label: str) -> Path | None:
        """Where the attack of that label keeps its checkpoints."""
        if self.folder is None:
            return None
        path = self.folder / f"{_slug(label)}.work"
        path.mkdir(exist_ok=True)
        return path

    def find(self, label: str) -> Unit | None:
        """The finished unit of that label, if any."""
        if self.folder is None or not (path := self.folder / f"{_slug(label)}.safetensors").exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                row = Row.from_json(file.metadata()["row"], str(path))
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError):
            raise InputError(f"{path} is damaged; delete it and run again with --resume.") from None
        return Unit(row, {k: v for k, v in tensors.items() if k != "samples"}, tensors["samples"])

    def keep(self, label: str, unit: Unit) -> None:
        """Write a finished unit and drop its checkpoints."""
        if self.folder is None:
            return
        tensors = {**unit.scores, "samples": unit.samples}
        content = save({k: v.contiguous() for k, v in tensors.items()}, {"row": unit.row.to_json()})
        write_atomically(self.folder / f"{_slug(label)}.safetensors", content)
        shutil.rmtree(self.folder / f"{_slug(label)}.work", ignore_errors=True)


def to_bytes(images: Tensor) -> Tensor:
    """[0, 1] -> uint8."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def _slug(label: str) -> str:
    words = "".join(c if c.isalnum() else "-" for c in label).strip("-")
    return f"{words[:60]}-{hashlib.blake2b(label.encode(), digest_size=4).hexdigest()}"
