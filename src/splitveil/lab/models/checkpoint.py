"""Reads weight files of any usual form (safetensors, torch checkpoints) without running anything in them."""

import argparse
import hashlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from splitveil.core.errors import WeightsError
from splitveil.lab.silence import quiet

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".th")
"""``.tar`` is what many call a pickle (``.pth.tar``); a real archive of that kind is refused."""
DEPTH, CONTAINERS = 5, 20_000
"""Dictionaries within dictionaries that are looked into, and how many of them."""

PLAIN: tuple[Any, ...] = (
    argparse.Namespace, np.dtype, np.float64(0).__reduce__()[0],
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
)  # fmt: skip
"""Beyond what torch allows: options of a training script and NumPy's numbers, which hold values and run nothing."""
OLDER: tuple[Any, ...] = ((np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),)
"""The same under NumPy 1's name."""

CONVERT = (
    "where you trust the file, write its tensors anew: "
    "splitveil.lab.models.weights.save_weights(model, path) of its model, "
    "or torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'tensors.pth')"
)


def read_checkpoint(path: Path) -> tuple[dict[str, Mapping[str, Tensor]], str]:
    """Every dictionary of tensors in a file, and the file's name with the first twelve hex digits of its SHA-256.

    They stand under their places: ``state_dict``, ``ema.module``, empty for the whole file. What is no tensor (epochs,
    options, optimizers' groups) is left aside. A file is read as what it is, whatever its suffix.

    Raises:
        WeightsError: missing, a folder, empty, damaged, of another kind, without tensors, or with Python objects.
    """
    if path.is_dir():
        raise WeightsError(f"expected a file of weights, got the folder {path}; {_inside(path)}.")
    if path.name.endswith(".index.json"):
        raise WeightsError(
            f"{path.name} only lists the parts of weights that lie in several files; "
            f"join them (load each part, merge the dictionaries) into one .safetensors file and give that."
        )
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(f"expected weights in {', '.join(SUFFIXES)}, got {path.name}; {CONVERT}.")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            start = file.read(64)
    except OSError as error:
        raise WeightsError(f"cannot read the weights {path}: {error.strerror}; check the path.") from None
    if not start:
        raise WeightsError(f"{path.name} is not a whole file of weights (0 bytes); copy or write it anew.")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path.name} is a pointer of Git LFS, not the weights themselves; run git lfs pull.")
    found = {"": _safetensors(path)} if _is_safetensors(path, start) else dict(_dictionaries(_torch(path)))
    if not found:
        raise WeightsError(
            f"expected a dictionary of tensors in {path.name}, alone or as 'state_dict' or 'model', got none; "
            f"{CONVERT}."
        )
    return found, f"{path.name} sha256:{digest[:12]}"


def _inside(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    return f"give a file in it, such as {folder / names[0]}" if names else "give a file"


def _is_safetensors(path: Path, start: bytes) -> bool:
    """They start with the length of a JSON object and that object; torch's files with the magic of zip or pickle."""
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return True
    return path.suffix.lower() == ".safetensors" and not start.startswith((b"PK", b"\x80"))


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        if "Dtype not understood" in str(error):
            raise WeightsError(
                f"{path.name} holds a type of tensor that cannot be read ({error}); write the weights as float32."
            ) from None
        raise WeightsError(f"{path.name} is not a whole safetensors file ({error}); copy or write it anew.") from None
    return found


def _torch(path: Path) -> object:
    try:
        with quiet(), torch.serialization.safe_globals([*PLAIN, *OLDER]), path.open("rb") as file:
            found: object = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen unrelated kinds here, all of which mean the same to a user
        raise WeightsError(f"{path.name} {_why(path, error)}.") from None
    return found


def _why(path: Path, error: Exception) -> str:
    if "TorchScript" in str(error):
        return "is a TorchScript archive; write its tensors alone: torch.save(torch.jit.load(FILE).state_dict(), ...)"
    if tarfile.is_tarfile(path):
        return f"is an archive of files, or in torch's oldest format; unpack it, or {CONVERT}"
    kind = re.search(r"Unsupported (?:global|class|operand).*?([\w.]+) was not an allowed", str(error))
    if kind:
        return f"is damaged or holds Python objects, which are never run ({kind[1]}); {CONVERT}"
    return f"is damaged or holds Python objects, which are never run ({type(error).__name__}); {CONVERT}"


def _dictionaries(root: object) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Breadth first, each object once."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), root)] if isinstance(root, Mapping | list | tuple) else []
    seen = set[int]()
    while waiting and len(seen) < CONTAINERS:
        place, here = waiting.pop(0)
        if id(here) in seen or len(place) > DEPTH:
            continue
        seen.add(id(here))
        items = list(here.items() if isinstance(here, Mapping) else enumerate(here))
        tensors = {k: t for k, t in items if isinstance(k, str) and isinstance(t, Tensor)}
        if tensors:
            yield ".".join(place), tensors
        waiting += [((*place, str(k)), v) for k, v in items if isinstance(v, Mapping | list | tuple)]
