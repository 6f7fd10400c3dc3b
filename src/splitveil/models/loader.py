"""Any model by its name, with weights that are checked and images in [0, 1] that it normalises itself."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from splitveil.errors import InputError, SplitVeilError, WeightsError
from splitveil.models.sources import Shape, Source, find_source
from splitveil.models.weights import Weights, read_weights, save_weights
from splitveil.seeds import seed_everything
from splitveil.silence import quiet
from splitveil.wrappers import uncompiled

__all__ = ["Loaded", "load_model", "save_weights"]

PRETRAINED = "pretrained"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that maps images (N, C, H, W) in [0, 1] to logits (N, K), in eval mode."""

    model: nn.Module
    name: str
    """As asked for."""
    weights: str
    """File name and hash, or how they were drawn."""
    shape: Shape
    classes: int
    remarks: tuple[str, ...] = ()
    """What was done to the weights of a file: types converted, tensors left out."""


def load_model(
    spec: str, *, shape: Shape | None, classes: int | None, weights: Path | str | None, seed: int = 0
) -> Loaded:
    """Build the model that `spec` names and give it weights.

    Args:
        spec: a name of `MODELS`, ``timm:NAME``, ``torchvision:NAME`` or ``PATH.py:FUNCTION``; the function gets
            ``shape`` and ``classes`` if it has such parameters and returns a net that takes images in [0, 1].
        shape: (C, H, W); the model's own when None.
        classes: K; when None that of the weights, else the model's own.
        weights: a file as for `read_weights`, ``FILE#model_ema`` for one of several sets in it; ``"pretrained"``
            downloads those of timm or torchvision; random when None.
        seed: of random weights; the global generators are left as they were.

    Raises:
        UnknownNameError: no such model.
        InputError: the model cannot be built, or does not turn such images into that many logits.
        WeightsError: weights that are missing, do not fit, are not finite, or hold Python objects.
    """
    source = find_source(spec)
    shape = shape or source.shape
    pretrained = str(weights) == PRETRAINED
    file = None if weights is None or pretrained else read_weights(Path(weights))
    asked, classes = classes, classes or source.classes
    if pretrained:
        _check_pretrained(spec, source, classes)
    with _seeded(seed):
        model = source.build(shape, classes, pretrained)
    remarks: tuple[str, ...] = ()
    if file is not None:
        _materialise(model, spec, shape)
        found = file.classes(model, classes, spec)
        if found not in (None, classes):
            if asked is not None:
                raise WeightsError(
                    f"{file.name} has {found} classes, expected {asked}; "
                    f"choose data with {found} classes or other weights."
                )
            classes = found or classes
            with _seeded(seed):
                model = source.build(shape, classes, False)
                _materialise(model, spec, shape)
        remarks = file.load_into(model, spec)
    model.eval()
    classes = _count_logits(model, spec, shape, asked)
    return Loaded(model, spec, _describe(source, pretrained, file, seed), shape, classes, remarks)


def _materialise(model: nn.Module, spec: str, shape: Shape) -> None:
    """Let lazy modules learn their shapes, so that weights can be compared with them."""
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        _count_logits(model, spec, shape, None)


def _check_pretrained(spec: str, source: Source, classes: int) -> None:
    if not source.downloads:
        raise WeightsError(f"{spec} has no weights to download; give a .safetensors file or leave the weights out.")
    if classes != source.classes:
        raise WeightsError(
            f"the pretrained weights of {spec} have {source.classes} classes, expected {classes}; "
            f"choose data with {source.classes} classes or weights that were fitted to yours."
        )


def _count_logits(model: nn.Module, spec: str, shape: Shape, classes: int | None) -> int:
    try:
        with quiet(), uncompiled(), torch.inference_mode():
            logits = model(torch.full((2, *shape), 0.5))
    except SplitVeilError:
        raise
    except Exception as error:
        raise InputError(
            f"{spec} cannot take images of shape {shape} ({type(error).__name__}: {' '.join(str(error).split())}); "
            "add ?size= or ?channels= to the data's name, or choose another model."
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"expected logits (2, K) from {spec} for two images, got {got}; return one row an image.")
    if classes not in (None, logits.shape[1]):
        raise InputError(
            f"expected {classes} logits from {spec}, got {logits.shape[1]}; let its function take classes, "
            f"or choose data with {logits.shape[1]} classes."
        )
    return logits.shape[1]


def _describe(source: Source, pretrained: bool, file: Weights | None, seed: int) -> str:
    if file is not None:
        return file.name
    return PRETRAINED if pretrained else source.drawn.format(seed=seed)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, and put them back as they were."""
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            seed_everything(seed)
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
