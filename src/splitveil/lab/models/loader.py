"""Any model by its name, with weights that are checked and images in [0, 1] that it normalises itself."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from splitveil.core.arguments import checked
from splitveil.core.errors import InputError, SplitVeilError, WeightsError
from splitveil.lab.models.sources import Shape, Source, find_source
from splitveil.lab.models.weights import Weights, read_weights, save_weights
from splitveil.lab.probing import answering, described, entries, materialized, misfit, sheltered
from splitveil.lab.seeds import seeded
from splitveil.lab.silence import quiet
from splitveil.lab.wrappers import uncompiled

__all__ = ["Loaded", "load_model", "save_weights"]

PRETRAINED = "pretrained"
LOGITS = "?logits="
"""Ends a name that also says which part of the model's answer holds the logits."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that maps images (N, C, H, W) in [0, 1] to logits (N, K), in eval mode."""

    model: nn.Module
    name: str
    """As asked for, ``?logits=KEY`` behind it where a part of the answer was chosen: loads the same model again."""
    weights: str
    """File name and hash, or how they were drawn."""
    shape: Shape
    classes: int
    remarks: tuple[str, ...] = ()
    """What was done to the weights of a file: types converted, tensors left out."""


@checked
def load_model(
    spec: str,
    *,
    shape: Shape | None,
    classes: int | None,
    weights: Path | str | None,
    seed: int = 0,
    logits: str | int | None = None,
    files: bool = True,
) -> Loaded:
    """Build the model that `spec` names and give it weights. Weights of 16 or 64 bits are converted to 32.

    Args:
        spec: a name of `MODELS`, ``timm:NAME``, ``torchvision:NAME`` or ``PATH.py:NAME``, the name of a function, a
            class or a module; the first two get ``shape`` and ``classes`` if they have such parameters. The net takes
            images in [0, 1]. ``?logits=KEY`` behind it does what `logits` does.
        shape: (C, H, W); the model's own when None.
        classes: K; when None that of the weights, else the model's own.
        weights: a file as for `read_weights`, ``FILE#model_ema`` for one of several sets in it; ``"pretrained"``
            downloads those of timm or torchvision; random when None.
        seed: of random weights; the global generators are left as they were.
        logits: key, field or place of the logits, for a model that answers with more than one tensor.
        files: whether ``PATH.py:NAME`` may be run: not where a stranger wrote `spec`.

    Raises:
        UnknownNameError: no such model.
        InputError: the model cannot be built, or does not turn such images into that many logits.
        WeightsError: weights that are missing, do not fit, are not finite, or hold Python objects.
    """
    spec, _, named = spec.partition(LOGITS)
    logits = named or logits if logits is None else logits
    with seeded(seed):  # a file that makes its model when it is read draws too
        source = find_source(spec, files=files)
    shape = shape or source.shape
    pretrained = str(weights) == PRETRAINED
    file = None if weights is None or pretrained else read_weights(Path(weights))
    asked, classes = classes, classes or source.classes
    if pretrained:
        _check_pretrained(spec, source, classes)
    model, remarks = _built(source, shape, classes, pretrained, seed)
    if file is not None:
        materialized(model, _blank(shape))
        found = file.classes(model, classes, spec)
        if found not in (None, classes):
            if asked is not None:
                raise WeightsError(
                    f"{file.name} has {found} classes, expected {asked}; "
                    f"choose data with {found} classes or other weights."
                )
            classes = found or classes
            model, remarks = _built(source, shape, classes, False, seed)
            materialized(model, _blank(shape))
        remarks += file.load_into(model, spec)
    model.eval()
    if logits is not None:
        model = answering(model, logits)
    classes = _count_logits(model, spec, shape, asked)
    name = spec if logits is None else f"{spec}{LOGITS}{logits}"
    return Loaded(model, name, _describe(source, pretrained, file, seed), shape, classes, remarks)


def _built(
    source: Source, shape: Shape, classes: int, pretrained: bool, seed: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model, all of it in 32-bit floats, and what it was in before if that was another kind."""
    # What torchvision has to say of its own defaults is nothing that a user could change here.
    with seeded(seed), quiet() if source.downloads and not pretrained else nullcontext():
        model = source.build(shape, classes, pretrained)
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if not kinds:
        return model, ()
    names = " and ".join(sorted(str(k).removeprefix("torch.") for k in kinds))
    return model.float(), (f"the model is made in {names} and computes in float32 here",)


def _blank(shape: Shape) -> Tensor:
    return torch.full((2, *shape), 0.5)


def _check_pretrained(spec: str, source: Source, classes: int) -> None:
    if not source.downloads:
        raise WeightsError(f"{spec} has no weights to download; give a .safetensors file or leave the weights out.")
    if classes != source.classes:
        raise WeightsError(
            f"the pretrained weights of {spec} have {source.classes} classes, expected {classes}; "
            f"choose data with {source.classes} classes or weights that were fitted to yours."
        )


def _count_logits(model: nn.Module, spec: str, shape: Shape, classes: int | None) -> int:
    images = _blank(shape)
    materialized(model, images)
    try:
        # On a copy: what a model counts or keeps belongs to whoever runs it next.
        with quiet(), uncompiled(), torch.no_grad(), seeded(0):
            logits = sheltered(model)(images.clone())
    except SplitVeilError:
        raise
    except Exception as error:  # the user's code: anything can be raised
        raise InputError(f"{spec} cannot take images of shape {shape}: {misfit(model, images, error)}.") from error
    if not isinstance(logits, Tensor):
        remedy = (
            "say which part holds them: --logits KEY, logits=KEY in Python" if entries(logits) else "return a tensor"
        )
        raise InputError(f"expected logits (2, K) from {spec} for two images, got {described(logits)}; {remedy}.")
    if not logits.is_floating_point():
        kind = str(logits.dtype).removeprefix("torch.")
        raise InputError(
            f"expected logits (2, K) in floating point from {spec}, got {kind}; return what it computes before it "
            "decides or rounds."
        )
    if logits.ndim != 2 or len(logits) != 2:
        raise InputError(
            f"expected logits (2, K) from {spec} for two images, got {tuple(logits.shape)}; return one row an image."
        )
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
