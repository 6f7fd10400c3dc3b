"""The ledger: finished units of an audit on disk, under a hash of what decides them, so that an audit goes on."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.records import claim, write_atomically
from splitveil.lab.seeds import digest

Kept = tuple[str, dict[str, Tensor]]
"""JSON and tensors of one finished thing."""


class Ledger:
    """What is finished, as JSON with tensors, each under a name that holds a hash of everything that decides it.

    Args:
        folder: of the audit; None keeps nothing but what goes to `cache`.
        guard: what must not change while resuming; another value is another audit.
        resume: go on with what is there.
        cache: folder of finished work shared with other audits; None for ``units`` in `folder`.

    Raises:
        InputError: the folder holds another audit, or any while not resuming.
    """

    def __init__(self, folder: Path | None, guard: Mapping[str, Any], *, resume: bool, cache: Path | None) -> None:
        self.work = folder / "units" if folder else None
        self.store = cache or self.work
        if folder is not None and self.work is not None:
            claim(folder, resume=resume)
            _check(folder / "run.json", guard)
            self.work.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "run.json", json.dumps(guard, indent=2).encode())

    def workdir(self, name: str) -> Path | None:
        """Where whoever makes `name` keeps its checkpoints."""
        if self.work is None:
            return None
        path = self.work / f"{name}.work"
        path.mkdir(exist_ok=True)
        return path

    def drop(self, name: str) -> None:
        """Remove the checkpoints of `name`."""
        if self.work is not None:
            shutil.rmtree(self.work / f"{name}.work", ignore_errors=True)

    def find(self, name: str) -> Kept | None:
        """JSON and tensors of `name`, if it is finished.

        Raises:
            InputError: the file is damaged.
        """
        if self.store is None or not (path := self.store / f"{name}.safetensors").exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                text, expected = file.metadata()["record"], file.metadata()["digest"]
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError):
            text, expected, tensors = "", "damaged", {}
        if _digest(text, tensors) != expected:
            raise InputError(f"{path} is damaged; delete it and run again with --resume.")
        return text, tensors

    def keep(self, name: str, text: str, tensors: Mapping[str, Tensor]) -> None:
        """Write what is finished and drop its checkpoints."""
        if self.store is not None:
            own = {k: v.contiguous() for k, v in tensors.items()}
            metadata = {"record": text, "digest": _digest(text, own)}
            write_atomically(self.store / f"{name}.safetensors", save(own, metadata))
        self.drop(name)


def _check(mark: Path, guard: Mapping[str, Any]) -> None:
    if not mark.exists():
        return
    try:
        held = json.loads(mark.read_text())
        differing = [k for k, v in guard.items() if held.get(k) != json.loads(json.dumps(v))]
    except (ValueError, AttributeError):
        raise InputError(f"{mark} is damaged; give another --out.") from None
    if differing:
        raise InputError(
            f"{mark.parent} holds another audit (it differs in {', '.join(differing)}); give another --out."
        )


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    arrays = digest(*(tensors[k].numpy() for k in sorted(tensors)))
    return hashlib.blake2b(f"{sorted(tensors)}{arrays}{text}".encode(), digest_size=16).hexdigest()
