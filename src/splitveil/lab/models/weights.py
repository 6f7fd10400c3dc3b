"""Weights on disk: found in a file by what fits a model, checked against it, written as safetensors."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from splitveil.core.errors import WeightsError
from splitveil.core.records import write_atomically
from splitveil.lab.models.checkpoint import read_checkpoint

WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that torch's wrappers put anywhere and no module of a user's has."""
COUNT = "num_batches_tracked"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)


@dataclass(frozen=True, slots=True)
class Fit:
    """One dictionary of a file, its names as a model's are."""

    place: str
    """Keys and prefix, joined by dots; empty for the whole file."""
    tensors: Mapping[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[str, ...]
    """Those of another shape, with both shapes."""
    outside: int
    """Tensors of the same dictionary without that prefix."""

    @property
    def named(self) -> bool:
        """All names fit."""
        return not self.missing and not self.unexpected

    @property
    def whole(self) -> bool:
        """All names and shapes fit."""
        return self.named and not self.shapes

    def same(self, other: "Fit") -> bool:
        """The same numbers under the same names."""
        return self.tensors.keys() == other.tensors.keys() and all(
            t is (o := other.tensors[n])
            or (_plain(t) and _plain(o) and t.dtype == o.dtype and torch.equal(t, o))
            for n, t in self.tensors.items()
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weights:
    """What a file holds: dictionaries of tensors by their place, and where they came from."""

    found: Mapping[str, Mapping[str, Tensor]]
    name: str
    """File name, what was asked for of it, and the first twelve hex digits of the file's SHA-256."""
    file: str
    asked: str = ""
    """``FILE#model_ema``: the place to take; without it the only one that fits."""

    def classes(self, model: nn.Module, built: int, what: str) -> int | None:
        """Outputs that these weights have where `model`'s last linear layer has `built`; None where no layer does."""
        names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == built]
        last = self.fitting(model, what).tensors.get(f"{names[-1]}.weight") if names else None
        return None if last is None or not last.ndim else len(last)

    def fitting(self, model: nn.Module, what: str) -> Fit:
        """The dictionary whose names and shapes are `model`'s; else that whose names are; else the nearest.

        Raises:
            WeightsError: several that differ fit alike, or nothing lies where it was asked for.
        """
        own = model.state_dict()
        ours = _unwrapped(own)
        while ours and all(name.startswith("module.") for name in ours):
            ours = {name.removeprefix("module."): raw for name, raw in ours.items()}
        needed = {name: _memory(raw, own[raw]) for name, raw in ours.items() if not name.endswith(COUNT)}
        all_fits = [f for place, tensors in self.found.items() for f in _fits(place, tensors, own, ours, needed)]
        fits = [f for f in all_fits if self.asked in ("", f.place or ".")]
        fits = fits or [f for f in all_fits if f.place.startswith(f"{self.asked}.")]
        if not fits:
            good = [f.place or "." for f in all_fits if f.named] or [place or "." for place in self.found]
            raise WeightsError(
                f"{self.file} has no weights at {self.asked!r}, it has {_few(dict.fromkeys(good), 8)}; "
                "choose one of these after the #, or leave it out."
            )
        right = [f for f in fits if f.whole] or [f for f in fits if f.named]
        if not right:
            return min(fits, key=lambda f: (-len(f.tensors), -len(f.unexpected), len(f.place)))
        different = [f for k, f in enumerate(right) if not any(f.same(g) for g in right[:k])]
        if len(different) > 1:
            places = [f.place or "." for f in different]
            raise WeightsError(
                f"{self.file} holds {len(places)} sets of weights that fit {what}: {_few(places, 8)}; "
                f"choose one, such as {self.file}#{places[-1]}."
            )
        return right[0]

    def load_into(self, model: nn.Module, what: str) -> tuple[str, ...]:
        """Copy every tensor into `model`, called `what` in messages; ``num_batches_tracked`` may be missing.

        Returns:
            what a user should know: types that were converted, tensors that were left out.

        Raises:
            WeightsError: tensors that are no plain numbers of the model's kind, each with its type; missing, unexpected
                or wrongly shaped tensors, all of them counted; or NaN or Inf; or several sets of weights that fit.
        """
        fit, own = self.fitting(model, what), model.state_dict()
        held = {n: t for n, t in fit.tensors.items() if n in own}
        usable = {n: _usable(n, t, own[n]) for n, t in held.items()}
        if wrong := [f"{n}: expected {_kind(own[n])}, got {_kind(held[n])}" for n, good in usable.items() if not good]:
            raise WeightsError(
                f"{self.name} holds {len(wrong)} tensors of types that are no weights of {what} ({_few(wrong, 3)}); "
                "write them as dense float32, float16 or bfloat16."
            )
        groups = {"missing": fit.missing, "unexpected": fit.unexpected, "of another shape": fit.shapes}
        misfits = [f"{len(names)} {word} ({_few(names, 3)})" for word, names in groups.items() if names]
        if misfits:
            raise WeightsError(
                f"{self.name} does not fit {what}: {'; '.join(misfits)}; give weights of this very model."
            )
        bad = [n for n, t in held.items() if not bool(t.isfinite().all())]
        bad += [n for n, t in held.items() if n not in bad and _overflows(t, own[n])]
        if bad:
            raise WeightsError(f"{self.name} holds NaN or Inf in {len(bad)} tensors ({_few(bad, 3)}); train it anew.")
        model.load_state_dict(held, strict=False)
        return tuple(self._remarks(fit, held, own))

    def _remarks(self, fit: Fit, held: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterable[str]:
        changed = Counter(
            (_kind(t), _kind(own[n])) for n, t in held.items() if own[n].is_floating_point() and t.dtype != own[n].dtype
        )
        for (before, after), count in changed.items():
            yield f"{self.file}: {count} tensors converted from {before} to {after}"
        if fit.outside:
            yield f"{self.file}: weights under {fit.place!r}; {fit.outside} other tensors beside them are left out"


def read_weights(path: Path) -> Weights:
    """Read ``.safetensors``, or ``.pt .pth .ckpt .pth.tar .bin .th`` with nothing but tensors and plain values.

    Which dictionary of the file and which prefix of its names (``module.``, ``_orig_mod.``, ``model.``, ...) are the
    model's is decided by what fits the model, when it is known. ``FILE#model_ema`` names one of several that fit,
    ``FILE#.`` the whole file.

    Raises:
        WeightsError: missing, corrupt, of another kind, or with Python objects inside.
    """
    file, _, asked = str(path).rpartition("#")
    if not file or path.exists():
        file, asked = str(path), ""
    found, name = read_checkpoint(Path(file))
    short = Path(file).name
    return Weights(found, name.replace(short, f"{short}#{asked}", 1) if asked else name, short, asked)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict of `model` as safetensors, atomically; tensors that share memory are written once each."""
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, save(state))


def _fits(
    place: str,
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    ours: Mapping[str, str],
    needed: Mapping[str, object],
) -> list[Fit]:
    """`tensors` under every prefix beneath which they have all names that are needed, else under the nearest one.

    own: the model's state; ours: its names without wrappers -> its names; needed: of these, with what ties them.
    """
    theirs = _unwrapped(tensors)
    held: dict[str, set[object]] = {}
    for name in theirs:
        parts = name.split(".")
        for k in range(len(parts)):
            if (memory := needed.get(".".join(parts[k:]))) is not None:
                held.setdefault(".".join(parts[:k]), set()).add(memory)
    complete = [prefix for prefix, memories in held.items() if len(memories) == len(set(needed.values()))]
    nearest = min(held, key=lambda prefix: (-len(held[prefix]), len(prefix)), default="")
    found = []
    for prefix in complete or [nearest]:
        lead = f"{prefix}." if prefix else ""
        inside = {name.removeprefix(lead): tensors[raw] for name, raw in theirs.items() if name.startswith(lead)}
        known = {ours[name]: tensor for name, tensor in inside.items() if name in ours}
        foreign = {theirs[lead + name]: tensor for name, tensor in inside.items() if name not in ours}
        there = {needed[name] for name in inside if name in needed}
        found.append(
            Fit(
                ".".join(filter(None, (place, prefix))),
                known,
                tuple(ours[name] for name, memory in needed.items() if memory not in there),
                tuple(name for name in foreign if not name.endswith(COUNT)),
                tuple(
                    f"{n}: expected {tuple(own[n].shape)}, got {tuple(t.shape)}"
                    for n, t in known.items()
                    if own[n].shape != t.shape
                ),
                len(theirs) - len(inside),
            )
        )
    return found


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Names without what torch's wrappers add -> the names themselves; unchanged where two would become one."""
    plain = {".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in names}
    names = list(names)
    return plain if len(plain) == len(names) else {name: name for name in names}


def _memory(name: str, tensor: Tensor) -> object:
    """What tied weights have in common: files may hold them once."""
    return (tensor.data_ptr(), tensor.shape) if tensor.numel() and tensor.data_ptr() else name


def _plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta or tensor.is_nested)


def _kind(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    words = {"meta": tensor.is_meta, "nested": tensor.is_nested, "sparse": tensor.layout != torch.strided}
    return " ".join([*(word for word, holds in words.items() if holds), dtype])


def _usable(name: str, tensor: Tensor, own: Tensor) -> bool:
    """Whether copying loses nothing but digits."""
    if not _plain(tensor):
        return False
    if name.endswith(COUNT):
        return tensor.dtype in (*FLOATS, *WHOLE)
    if own.is_floating_point():
        return tensor.dtype in FLOATS
    if own.is_complex():
        return tensor.dtype in FLOATS or tensor.is_complex()
    if own.dtype == torch.bool:
        return tensor.dtype in (torch.bool, torch.uint8)
    return tensor.dtype in WHOLE and torch.equal(tensor.to(own.dtype).to(tensor.dtype), tensor)


def _overflows(tensor: Tensor, own: Tensor) -> bool:
    return own.is_floating_point() and not bool(tensor.to(own.dtype).isfinite().all())


def _few(names: Iterable[str], most: int) -> str:
    shown = list(names)
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")
