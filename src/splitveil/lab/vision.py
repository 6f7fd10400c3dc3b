"""torchvision and timm, imported so that they work beside a torch that lacks torchvision's compiled operators."""

import importlib
from types import ModuleType

import torch

from splitveil.core.errors import MissingExtraError

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []


def torchvision() -> ModuleType:
    """The torchvision module.

    A torchvision built for another torch (CUDA wheels beside a CPU torch) cannot load its compiled operators and fails
    on import, though its models need none of them. Only then are they declared, without an implementation.

    Raises:
        MissingExtraError: not installed.
    """
    try:
        return _import("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for schema in _OPERATORS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            library.define(schema)
    _declared.append(library)
    return _import("torchvision")


def timm() -> ModuleType:
    """The timm module (it imports torchvision).

    Raises:
        MissingExtraError: not installed.
    """
    torchvision()
    return _import("timm")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingExtraError(f"{name} is not installed; run: pip install 'splitveil[lab]'") from None
