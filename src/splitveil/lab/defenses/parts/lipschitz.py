"""How much an edge half amplifies small changes, block by block (PATROL, Ding et al. 2024, eq. for k_i)."""

import copy
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from splitveil.core.errors import CutError
from splitveil.lab.cut import trace

MODES = ("mean", "max", "power")
DEAD = 1e-3
"""Deviation, relative to the root mean square over channels, below which a channel counts as dead."""
TINY = 1e-12

Function = Callable[[Tensor], Tensor]


class Blocks:
    """Consecutive pieces of an edge half that compute with that half's own weights, BatchNorm in eval mode.

    The half is cut at its own legal cuts nearest to even shares of its multiply-accumulates. The pieces hold no
    weights: each call takes them from the half that is given, which may be in training, masked, or on another device.

    Args:
        edge: in eval mode, its weights plain.
        x: (N, C, H, W), only its shape matters.
        count: pieces at most; fewer where there are not so many cuts.
    """

    def __init__(self, edge: nn.Module, x: Tensor, count: int) -> None:
        self._pieces: list[nn.Module] = []
        rest, given = edge, x[:1]
        for left in range(count, 1, -1):
            try:
                traced = trace(rest, given)
                cuts = traced.cuts()
                if not cuts:
                    break
                whole = cuts[0].edge_macs + cuts[0].cloud_macs
                nearest = min(cuts, key=lambda c: (abs(c.edge_macs - whole / left), -c.index))
                halves = traced.split(nearest.name)
            except CutError:
                break
            self._pieces.append(halves.edge)
            with torch.no_grad():
                rest, given = halves.cloud, halves.edge(given)
        self._pieces = [p.to("meta").eval() for p in (*self._pieces, rest if self._pieces else copy.deepcopy(edge))]

    def __len__(self) -> int:
        return len(self._pieces)

    def of(self, edge: nn.Module) -> list[Function]:
        """The blocks with the present weights of `edge`, first to last; gradients reach them."""
        return [_with(piece, edge) for piece in self._pieces]


def local_constants(
    blocks: Sequence[Function], x: Tensor, *, mode: str = "mean", sigma: float = 0.02, steps: int = 1
) -> Tensor:
    """k_i of every block: the ratio of the changes behind and before it, in units of what changes between images.

    A change counts per element and relative to its channel's deviation over `x`, whose gradient is kept: scaling the
    features changes neither k nor the direction of its gradient, and channels that died are left out of the mean rather
    than rewarded (our reading; the paper has plain norms).

    Args:
        blocks: each (N, *before) -> (N, *behind), samples independent.
        x: (N, C, H, W); at least two images.
        mode: ``mean`` and ``max`` over the images, one Gaussian change of each, which is far from the worst one; or
            ``power``, the mean over the images of the worst change of each block's input, by power iteration.
        sigma: of the Gaussian change, in units of x.
        steps: of the power iteration.

    Returns:
        (blocks,).
    """
    if mode == "power":
        return _worst(blocks, x, steps)
    here, there, found = x, x + sigma * torch.randn_like(x), []
    before = _size(there - here, *_unit(here))
    for block in blocks:
        here, there = block(here), block(there)
        behind = _size(there - here, *_unit(here))
        found.append(behind / before.clamp_min(TINY))
        before = behind
    ratios = torch.stack(found)
    return ratios.mean(1) if mode == "mean" else ratios.amax(1)


def _worst(blocks: Sequence[Function], x: Tensor, steps: int) -> Tensor:
    """Largest singular value of each block's Jacobian between normalised features, a mean over images."""
    here, found = x, []
    for block in blocks:
        there = block(here)
        into, out = _unit(here), _unit(there)
        with torch.no_grad():
            change = _worst_change(block, here.detach(), _detached(into), _detached(out), steps)
        moved = _pushed(block, here, change)
        found.append((_size(moved, *out) / _size(change, *into).clamp_min(TINY)).mean())
        here = there
    return torch.stack(found)


def _worst_change(
    block: Function, at: Tensor, into: tuple[Tensor, Tensor], out: tuple[Tensor, Tensor], steps: int
) -> Tensor:
    """(N, *before), in units of the block's input."""
    deviation, live = into
    direction = torch.randn_like(at) * live
    back = vjp(block, at)[1]
    for _ in range(steps):
        moved = _pushed(block, at, direction * deviation)
        (pulled,) = back(moved * out[1] / out[0].square())
        direction = pulled * deviation * live
        direction = direction / direction.flatten(1).norm(dim=1).clamp_min(TINY).reshape(-1, *[1] * (at.ndim - 1))
    return direction * deviation


def _pushed(block: Function, at: Tensor, change: Tensor) -> Tensor:
    """``J change``, (N, *behind)."""
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # Fused attention has no forward derivative; torch's own first use of forward derivatives warns of itself.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=DeprecationWarning)
        moved: Tensor = jvp(block, (at,), (change,))[1]
    return moved


def _unit(z: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's deviation over images and positions, and 1 for the live channels, 0 for the dead."""
    channel = z.ndim - 1 if z.ndim == 3 else 1
    over = [axis for axis in range(z.ndim) if axis != channel]
    variance = (z - z.mean(over, keepdim=True)).square().mean(over, keepdim=True)
    least = (DEAD**2 * variance.detach().mean()).clamp_min(TINY**2)
    live = (variance.detach() > least).to(z.dtype)
    return torch.where(live > 0, variance, torch.ones_like(variance)).sqrt(), live


def _size(change: Tensor, deviation: Tensor, live: Tensor) -> Tensor:
    """(N,): root mean square over the elements of live channels, in units of their deviation."""
    share = live.mean().clamp_min(TINY)
    return ((change / deviation * live).flatten(1).square().mean(1) / share + TINY**2).sqrt()


def _detached(unit: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return unit[0].detach(), unit[1]


def _with(piece: nn.Module, edge: nn.Module) -> Function:
    owned = [name for name, _ in (*piece.named_parameters(), *piece.named_buffers())]
    weights = {name: _value(edge, name) for name in owned}

    def run(z: Tensor) -> Tensor:
        out: Tensor = functional_call(piece, weights, (z,))
        return out

    return run


def _value(edge: nn.Module, name: str) -> Tensor:
    """What `edge` computes with under that name, masks included."""
    path, _, leaf = name.rpartition(".")
    value: Tensor = getattr(edge.get_submodule(path), leaf)
    return value
