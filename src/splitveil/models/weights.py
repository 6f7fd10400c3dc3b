"""Weights on disk: read without running anything in them, checked against a model, written as safetensors."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from splitveil.errors import WeightsError
from splitveil.records import write_atomically

SUFFIXES = (".safetensors", ".pth", ".pt")
WRAPPERS = ("state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

CONVERT = (
    "where you trust the file, load its model and write it anew with splitveil.models.weights.save_weights(model, path)"
)


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors of a model by name, and where they came from."""

    tensors: Mapping[str, Tensor]
    name: str
    """File name and the first twelve hex digits of the file's SHA-256."""

    def classes(self, model: nn.Module, built: int) -> int | None:
        """Outputs that these weights have where `model`'s last linear layer has `built`; None where no layer does."""
        names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == built]
        last = self.tensors.get(f"{names[-1]}.weight") if names else None
        return None if last is None or not last.ndim else len(last)

    def load_into(self, model: nn.Module, what: str) -> None:
        """Copy every tensor into `model`, called `what` in messages; ``num_batches_tracked`` may be missing.

        Raises:
            WeightsError: missing, unexpected or wrongly shaped tensors, all of them counted; or NaN or Inf.
        """
        own = model.state_dict()
        missing = [n for n in own if n not in self.tensors and not n.endswith("num_batches_tracked")]
        unexpected = [n for n in self.tensors if n not in own and not n.endswith("num_batches_tracked")]
        shapes = [
            f"{n}: expected {tuple(own[n].shape)}, got {tuple(t.shape)}"
            for n, t in self.tensors.items()
            if n in own and own[n].shape != t.shape
        ]
        groups = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        wrong = [f"{len(names)} {word} ({_few(names)})" for word, names in groups.items() if names]
        if wrong:
            raise WeightsError(f"{self.name} does not fit {what}: {'; '.join(wrong)}; give weights of this very model.")
        bad = [n for n, t in self.tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())]
        if bad:
            raise WeightsError(f"{self.name} holds NaN or Inf in {len(bad)} tensors ({_few(bad)}); train it anew.")
        model.load_state_dict({n: t for n, t in self.tensors.items() if n in own}, strict=False)


def read_weights(path: Path) -> Weights:
    """Read ``.safetensors``, or ``.pth`` and ``.pt`` where these hold nothing but tensors.

    Dictionaries wrapped in ``state_dict`` or ``model`` are unwrapped, common prefixes of training wrappers removed.

    Raises:
        WeightsError: missing, corrupt, of another kind, or with Python objects inside.
    """
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"expected weights in {', '.join(SUFFIXES)}, got {path.name}; {CONVERT}.")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read the weights {path}: {error.strerror}; check the path.") from None
    found = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    return Weights(_without_prefix(found), f"{path.name} sha256:{digest[:12]}")


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict of `model` as safetensors, atomically; tensors that share memory are written once each."""
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, save(state))


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a whole safetensors file ({error}); copy or write it anew.") from None
    return found


def _torch(path: Path) -> Mapping[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen unrelated kinds here, all of which mean the same to a user
        raise WeightsError(
            f"{path.name} is damaged or holds Python objects, which are never run ({type(error).__name__}); {CONVERT}."
        ) from None
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise WeightsError(
            f"expected a dictionary of tensors in {path.name}, alone or as {' or '.join(map(repr, WRAPPERS))}, "
            f"got {type(found).__name__}; {CONVERT}."
        )
    return found


def _without_prefix(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return _without_prefix({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return tensors


def _few(names: Iterable[str]) -> str:
    first, *rest = names
    shown = [first, *rest[:2]]
    return ", ".join(shown) + (", ..." if len(rest) > 2 else "")
