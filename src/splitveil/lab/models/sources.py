"""Where models come from: our table, timm, torchvision, a user's own file."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from splitveil.core.errors import InputError, SplitVeilError, UnknownNameError, WeightsError
from splitveil.core.printing import phrase
from splitveil.core.registry import nearest
from splitveil.lab.models import MODELS, hub
from splitveil.lab.models.base import IMAGENET_MEAN, IMAGENET_STD, Normalize, normalized
from splitveil.lab.probing import copied
from splitveil.lab.silence import unwarned
from splitveil.lab.source_files import imported, searching
from splitveil.lab.wrappers import unwrapped

Shape = tuple[int, int, int]

SHAPE: Shape = (3, 32, 32)
CLASSES = 10
GIVEN = ("shape", "classes")
"""What the makers of models are given, by name."""
OTHERWISE = "Or give timm:NAME, torchvision:NAME or PATH.py:FUNCTION."


@dataclass(frozen=True, slots=True)
class Source:
    """One model that can be built.

    Args:
        shape: image shape (C, H, W) when none is asked for.
        classes: number of classes when none is asked for.
        build: (shape, classes, pretrained) -> a net that maps [0, 1] images to logits.
        downloads: whether pretrained weights can be asked for.
        drawn: how the weights came about when none are given; ``{seed}`` stands for the seed.
    """

    shape: Shape
    classes: int
    build: Callable[[Shape, int, bool], nn.Module]
    downloads: bool = False
    drawn: str = "random (seed {seed})"


def find_source(spec: str, *, files: bool = True) -> Source:
    """Read ``NAME``, ``timm:NAME``, ``torchvision:NAME`` or, where `files` may be run, ``PATH.py:FUNCTION``.

    Raises:
        UnknownNameError: no such model; the message gives the nearest.
        InputError: a file or a function that is not there or cannot be imported.
    """
    path, colon, function = spec.rpartition(":")
    if spec.endswith(".py"):
        raise InputError(f"expected PATH.py:FUNCTION, got {spec!r}; add the function that makes the model.")
    if path.endswith(".py"):
        if not files:
            raise InputError(
                f"the model is made by {phrase(spec)}, a Python file that a bundle names, and nothing that a bundle "
                "names is run unasked; if it is yours, give it again: --trust-model PATH.py, model=... in Python."
            )
        return _file(Path(path), function)
    library, colon, name = spec.partition(":")
    libraries: dict[str, Callable[[str], Source]] = {"timm": _timm, "torchvision": _torchvision}
    if not colon:
        return _zoo(spec)
    if library not in libraries:
        raise UnknownNameError(f"unknown model source {library!r}.{nearest(library, libraries)} {OTHERWISE}")
    return libraries[library](name)


def _zoo(name: str) -> Source:
    try:
        factory = MODELS.get(name)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error} {OTHERWISE}") from None
    shape, classes = _defaults(factory)
    return Source(shape, classes, lambda shape, classes, _: MODELS.build(name, shape=shape, classes=classes))


def _timm(name: str) -> Source:
    from splitveil.lab.vision import timm

    library = timm()
    if not library.is_model(name):
        raise UnknownNameError(f"timm has no model {name!r}.{nearest(name, library.list_models())}")
    try:
        config = library.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UnknownNameError(f"timm has no weights {name!r} ({error}); leave out what follows the dot.") from None
    native: Shape = tuple(config.input_size)

    def build(shape: Shape, classes: int, pretrained: bool) -> nn.Module:
        size: dict[str, Any] = {"img_size": shape[1:]} if config.fixed_input_size and shape != native else {}
        if pretrained and (here := hub.timm_file(config, f"timm:{name}")):
            size["pretrained_cfg_overlay"] = {"file": str(here)}
        with _explained(f"timm:{name}", pretrained):
            net = library.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=shape[0], **size)
        known = len(config.mean) == shape[0]
        return normalized(net, Normalize(shape[0], config.mean, config.std) if known else Normalize(shape[0]))

    offered = bool(config.hf_hub_id or config.url or config.file)
    return Source(native, config.num_classes or CLASSES, build, downloads=offered)


def _torchvision(name: str) -> Source:
    from splitveil.lab.vision import torchvision

    models = torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownNameError(f"torchvision has no classifier {name!r}.{nearest(name, known)}")

    def build(shape: Shape, classes: int, pretrained: bool) -> nn.Module:
        if shape[0] != len(IMAGENET_MEAN):
            raise InputError(f"torchvision:{name} expected 3 channels, got {shape[0]}; add ?channels=3 to the data.")
        size = {"image_size": shape[1]} if name.startswith("vit_") else {}
        if pretrained:
            hub.check_torchvision(models.get_model_weights(name).DEFAULT.url, f"torchvision:{name}")
        with _explained(f"torchvision:{name}", pretrained):
            net = models.get_model(name, weights="DEFAULT" if pretrained else None, num_classes=classes, **size)
        return normalized(net, Normalize(shape[0], IMAGENET_MEAN, IMAGENET_STD))

    return Source((3, 224, 224), 1000, build, downloads=True)


def _file(path: Path, function: str) -> Source:
    spec = f"{path.name}:{function}"
    with searching(path.parent), unwarned():
        module = imported(path)
    factory = getattr(module, function, None)
    if not callable(factory):
        own = [n for n, f in vars(module).items() if callable(f) and getattr(f, "__module__", "") == module.__name__]
        what = f"no function {function!r}" if factory is None else f"a {type(factory).__name__} {function!r}"
        raise InputError(f"{path} has {what}.{nearest(function, own)} It defines: {', '.join(own)}.")
    if isinstance(factory, nn.Module):
        made = factory
        return Source(SHAPE, CLASSES, lambda *_: copied(unwrapped(made)), drawn=f"as {spec} has them")
    parameters = inspect.signature(factory).parameters
    needed = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in GIVEN
    ]
    if needed:
        raise InputError(
            f"{spec} needs {', '.join(map(repr, needed))} where SplitVeil gives {' and '.join(map(repr, GIVEN))} by "
            f"name; give the others defaults, or write a function make(shape, classes) that returns the model."
        )

    def build(shape: Shape, classes: int, pretrained: bool) -> nn.Module:
        asked: dict[str, Any] = {"shape": shape, "classes": classes}
        with searching(path.parent), _explained(spec, pretrained), unwarned():
            net = factory(**{name: value for name, value in asked.items() if name in parameters})
        if not isinstance(net, nn.Module):
            raise InputError(f"expected a torch.nn.Module from {spec}, got {type(net).__name__}; return the model.")
        return unwrapped(net)

    return Source(*_defaults(factory), build, drawn=f"as {spec} makes them (seed {{seed}})")


def _defaults(factory: Callable[..., object]) -> tuple[Shape, int]:
    parameters = inspect.signature(factory).parameters
    shape = parameters["shape"].default if "shape" in parameters else SHAPE
    classes = parameters["classes"].default if "classes" in parameters else CLASSES
    shape = tuple(shape) if isinstance(shape, tuple | list) and len(shape) == len(SHAPE) else SHAPE
    return shape, classes if isinstance(classes, int) else CLASSES


@contextmanager
def _explained(spec: str, pretrained: bool) -> Iterator[None]:
    """Other people's code raises anything; say in one sentence whose fault and what to do."""
    try:
        yield
    except SplitVeilError:
        raise
    except Exception as error:
        why = f"({type(error).__name__}: {' '.join(str(error).split())})"
        if pretrained:
            raise WeightsError(
                f"cannot download pretrained weights of {spec} {why}; give a .safetensors file instead."
            ) from error
        raise InputError(f"cannot build {spec} {why}; ask for another shape or another model.") from error
