"""Why a model does not take an image, found by trying what else it would take; and what to do about it."""

import inspect
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from splitveil.lab.probing.copies import sheltered

SIDES = (28, 32, 64, 96, 128, 224, 256, 299, 384)
CHANNELS = (1, 3, 4)
TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8)


class Attempt(NamedTuple):
    """Something else to give the model; what it means if that works, and the remedy."""

    x: Any
    cause: str
    remedy: str


def misfit(model: nn.Module, x: Tensor, error: Exception) -> str:
    """``cause; remedy`` for a model (eval mode) that raised `error` for x: (N, C, H, W). The model is left as it is."""
    told = _signature(model) or _tried(model, x) or "give images like its real input, or choose another model"
    line = (str(error).strip().partition("\n")[0] or type(error).__name__)[:200].rstrip(".")
    kind = "" if isinstance(error, RuntimeError | ValueError) else f"{type(error).__name__}: "
    return f"{kind}{line}; {told}"


def _signature(model: nn.Module) -> str:
    """What `forward` asks for beyond one image."""
    # Our own classes only add a step to somebody's; what is asked for stands below them.
    forward: Any = next(
        vars(c)["forward"]
        for c in type(model).__mro__
        if "forward" in vars(c) and not c.__module__.startswith("splitveil.")
    )
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    keywords = [p.name for p in required if p.kind is p.KEYWORD_ONLY]
    if not places:
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        what = f"by the keyword {' or '.join(map(repr, named[:3]))}" if named else "not at all"
        return f"it takes its input {what}; wrap it in a module whose forward(x) takes the image and calls it"
    several = [p.name for p in required if p.kind is not p.KEYWORD_ONLY]
    if len(several) > 1 or keywords:
        what = ", ".join(map(repr, several + keywords))
        return (
            f"it takes {len(several) + len(keywords)} inputs ({what}) where only the image crosses; give the others "
            "defaults, or wrap it in a module whose forward(x) takes the image alone"
        )
    return ""


def _tried(model: nn.Module, x: Tensor) -> str:
    return next((f"{a.cause}; {a.remedy}" for a in _attempts(model, x) if _takes(model, a.x)), "")


def _takes(model: nn.Module, x: object) -> bool:
    try:
        with torch.no_grad():
            sheltered(model)(x)
    except Exception:  # the user's code, given what it may not be for: anything can be raised, and says no
        return False
    return True


def _attempts(model: nn.Module, x: Tensor) -> Iterator[Attempt]:
    if len(x) > 1:
        yield Attempt(
            x[:1], "it takes a single image but no batch", "let it take any number of images, the batch axis first"
        )
    for dtype in TYPES:
        name = str(dtype).removeprefix("torch.")
        remedy = "let it convert them itself at its start, or compute in float32"
        yield Attempt(x.to(dtype), f"it takes {name} where images are float32 in [0, 1]", remedy)
    if x.ndim != 4:
        return
    yield from _shapes(model, x)
    layouts: dict[str, Callable[[Tensor], Any]] = {
        "(N, H, W, C), channels last": lambda t: t.permute(0, 2, 3, 1).contiguous(),
        "(N, C * H * W), flat": lambda t: t.flatten(1),
        "(N, H, W), without channels": lambda t: t[:, 0],
        "(C, H, W), one without a batch axis": lambda t: t[0],
        "a list of (C, H, W)": list,
    }
    for words, change in layouts.items():
        remedy = "let it take (N, C, H, W) and rearrange them itself at its start"
        yield Attempt(change(x), f"it takes images as {words}", remedy)


def _shapes(model: nn.Module, x: Tensor) -> Iterator[Attempt]:
    """Other channels, then other sizes, then both."""
    channels, height, width = x.shape[1:]
    own = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), channels)
    counts = [channels, *dict.fromkeys(c for c in (own, *CHANNELS) if c != channels)]
    sides = [(height, width), *((s, s) for s in SIDES if (s, s) != (height, width))]
    for (h, w), c in sorted(product(sides, counts), key=lambda pair: (pair[0] != sides[0]) + (pair[1] != channels)):
        if (c, h, w) == (channels, height, width):
            continue
        what = [f"{c} channel{'s' * (c > 1)}, not {channels}"] if c != channels else []
        what += [f"{h}x{w} pixels, not {height}x{width}"] if (h, w) != (height, width) else []
        data = "&".join(
            [f"channels={c}"] * (c != channels and c in (1, 3)) + [f"size={h}"] * ((h, w) != (height, width))
        )
        after = f"add ?{data} to the data's name, or " if data else ""
        other = x.new_full((len(x), c, h, w), 0.5)
        yield Attempt(other, f"it takes images of {' and '.join(what)}", f"{after}give --input {c}x{h}x{w}")
