"""Gradients that lie: found by finite differences, and replaced by slopes over a natural step.

Rounding, casts and comparisons have none, `detach` and `no_grad` hide them, an autograd function may give any, and a
quick wave of no height spoils all others. Where what a function does to a step is not what its gradient says, secants
over a width that explains the step better stand in for it, while its value stays: the backward pass differentiable
approximation of Athalye et al. (ICML 2018), with the approximation taken from the function itself (our own way).
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import _SingleLevelFunction
from torch.overrides import TorchFunctionMode

from splitveil.lab.accelerator import Accelerator

WIDTHS = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Half the length of a secant, in spreads of what goes in."""
STEP = 0.3
"""The natural step, in the same."""
BETTER, POOR = 0.2, 0.5
"""A gradient is replaced if it explains less than this share of a step, and a secant so much more of it."""
MOVED = 0.1
"""Root mean square by which images are moved to compare slopes: where a search is at 20 dB."""
HIDDEN = 0
"""Number that stands for gradients which are switched off on the way."""
ROUGH = 0.05
"""Error of features in bf16, in spreads of themselves, from which on a search computes in float32."""

Call = Callable[..., Any]
Handler = Callable[[int, Call, Sequence[Any], Mapping[str, Any]], Any]

_watching = threading.local()


class Watch(TorchFunctionMode):
    """Hands every torch function that is called meanwhile to `handler`, with its number; gradients cannot be hidden."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.handler, self.count = handler, 0

    def __torch_function__(self, func: Call, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._set_grad_enabled and args and args[0] is False:
            return self.handler(HIDDEN, lambda: None, (), {})
        return self.called(func, args, kwargs or {})

    def called(self, func: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """One call."""
        self.count += 1
        return self.handler(self.count, func, args, kwargs)


@contextmanager
def watched(handler: Handler) -> Iterator[None]:
    """`Watch`, and calls of autograd functions, which torch does not tell it of."""
    # Below `Function.apply`, which a module may have kept under a name of its own.
    kind: Any = _SingleLevelFunction

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        real, watch = super(kind, cls).apply, getattr(_watching, "watch", None)
        if watch is None:
            return real(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            _watching.watch = None
            try:
                return watch.called(real, args, kwargs)
            finally:
                _watching.watch = watch

    before = getattr(_watching, "watch", None)
    _watching.watch = watch = Watch(handler)
    outermost = "apply" not in vars(kind)
    if outermost:
        kind.apply = classmethod(apply)
    try:
        with watch:
            yield
    finally:
        if outermost:
            del kind.apply
        _watching.watch = before


class Mended(nn.Module):
    """A module whose values are its own and whose backward pass takes secants where its gradients lie.

    Args:
        inner: the module.
        widths: number of a call -> half the length of its secant.
        exact: computes in float32 also where a search would not.
    """

    def __init__(self, inner: nn.Module, widths: Mapping[int, float], *, exact: bool = False) -> None:
        super().__init__()
        self.inner, self.widths, self.exact = inner, dict(widths), exact

    def forward(self, x: Tensor) -> Tensor:
        if not self.exact:
            return self._run(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._run(x.float())

    def _run(self, x: Tensor) -> Tensor:
        if not self.widths:
            return _answer(self.inner, x)
        with watched(self._called):
            return _answer(self.inner, x)

    def _called(self, number: int, func: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        width = self.widths.get(number)
        if not width:
            return func(*args, **kwargs)
        place = _place(args) or 0
        u = args[place]

        def at(v: Tensor) -> Tensor:
            found: Tensor = func(*args[:place], v.clone(), *args[place + 1 :], **kwargs)
            return found.to(u.dtype)

        with torch.no_grad():
            value, slope = at(u), (at(u + width) - at(u - width)) / (2 * width)
        moved = value + slope * (u - u.detach())
        return u.copy_(moved) if _in_place(func) else moved


def lying(module: nn.Module, x: Tensor) -> dict[int, float]:
    """Calls of pointwise functions in a module whose gradient is not what a natural step does, with a width each.

    x: what it is given, (n, ...). Empty where nothing is to be mended, or the module does not bear it.
    """
    found: dict[int, float] = {}
    draws = torch.Generator().manual_seed(0)

    def study(number: int, func: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if number == HIDDEN:
            found[HIDDEN] = 0.0
        place = _place(args)
        before = args[place].detach().clone() if place is not None else None
        out = func(*args, **kwargs)
        if place is None or before is None or not isinstance(out, Tensor) or out.shape != before.shape:
            return out
        if any(isinstance(value, Tensor) for value in kwargs.values()):
            return out

        def at(v: Tensor) -> Tensor:
            got: Tensor = func(*args[:place], v, *args[place + 1 :], **kwargs)
            return got.to(before.dtype)

        width = _width(at, before, draws)
        if width is not None:
            found[number] = width
        return out

    value = _answer(module, x)
    with watched(study):
        _answer(module, x)
    if not found:
        return {}
    try:
        mended = Mended(module, found)(x)
    except (RuntimeError, TypeError, IndexError, AssertionError):
        # What it makes of a cast, a comparison or the like cannot be a float: leave that as it is.
        return {}
    return found if torch.allclose(mended, value, rtol=1e-3, atol=1e-5) else {}


def agreement(features: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """How far the gradient of a distance of features is what a step between images does to it: 1 wholly, 0 not at all.

    From images moved away from x, (n, C, H, W), towards others and into their own blur, back to x. The cosine of both
    slopes over images, each in units of its distance; less where the gradients are too short, which a search's prior
    then outweighs, and not less where they are too long.
    """
    blurred = nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    with torch.no_grad():
        seen = features(x).flatten(1)
    told, true = list[Tensor](), list[Tensor]()
    for away in (x.roll(1, 0) - x, blurred - x):
        away = away * (MOVED / away.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6))

        def distance(t: Tensor, away: Tensor = away) -> Tensor:
            return (features(x + t.reshape(-1, 1, 1, 1) * away).flatten(1) - seen).square().sum(1)

        t = torch.ones(len(x), device=x.device, requires_grad=True)
        value = distance(t)
        slope = torch.autograd.grad(value.sum(), t)[0] if value.requires_grad else torch.zeros_like(t)
        with torch.no_grad():
            unit = value.clamp_min(1e-30)
            told.append(slope / unit)
            true.append((distance(1.5 * torch.ones_like(t)) - distance(0.5 * torch.ones_like(t))) / unit)
    a, b = torch.cat(told).nan_to_num(0.0, 0.0, 0.0), torch.cat(true).nan_to_num(0.0, 0.0, 0.0)
    length = torch.maximum((a.square().sum() * b.square().sum()).sqrt(), b.square().sum())
    return float((a * b).sum() / length) if float(length) > 0 else 1.0


def too_rough(features: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether bf16 spoils features of images x: (n, C, H, W)."""
    where = Accelerator.of(x)
    if not where.bf16:
        return False
    with torch.no_grad():
        fine = features(x).float()
        with where.autocast():
            coarse = features(x).float()
    return float((coarse - fine).square().mean().sqrt()) > ROUGH * float(fine.std())


def _width(at: Callable[[Tensor], Tensor], u: Tensor, draws: torch.Generator) -> float | None:
    """Half the length of the secants that stand in for the gradient of a pointwise function; None if it need not be."""
    spread = float(u.std()) if u.numel() > 1 else 0.0
    if not spread > 0:
        return None
    with torch.no_grad():
        mask = (torch.rand(u.shape, generator=draws) < 0.5).to(u.device)
        step = STEP * spread * torch.randn(u.shape, generator=draws).to(u.device, u.dtype)
        start, moved = at(u.clone()), at(u + step)
        change = moved - start
        power = float(change.square().sum())
        if not 0 < power < float("inf") or not torch.equal(
            at(torch.where(mask, u + step, u)), torch.where(mask, moved, start)
        ):
            return None

        def explained(slope: Tensor) -> float:
            return 1 - float((change - slope * step).square().sum()) / power

    with torch.enable_grad():
        v = u.clone().requires_grad_(True)
        value = at(v * 1)
        told = torch.autograd.grad(value.sum(), v)[0] if value.requires_grad else torch.zeros_like(u)
    own = explained(told)
    if own >= POOR:
        return None
    with torch.no_grad():
        tried = {w: explained((at(u + w) - at(u - w)) / (2 * w)) for w in (k * spread for k in WIDTHS)}
    best = max(tried, key=lambda w: tried[w])
    return best if not own >= tried[best] - BETTER else None


def _place(args: Sequence[Any]) -> int | None:
    """Where the one tensor of floats is among these; None where there is none, or another tensor."""
    tensors = [k for k, value in enumerate(args) if isinstance(value, Tensor)]
    if len(tensors) != 1 or not args[tensors[0]].is_floating_point():
        return None
    return tensors[0]


def _in_place(func: Call) -> bool:
    name = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _answer(module: nn.Module, x: Tensor) -> Tensor:
    z: Tensor = module(x)
    return z
