"""How much of an edge half may stay: what channels cost, and which of them go."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from splitveil.core.errors import CutError, InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.cut.costs import largest_step, module_macs
from splitveil.lab.defenses.parts.pruning import Group, run_noting, sizes


class _Layer(NamedTuple):
    outputs: int
    inputs: int
    macs: int
    weights: int
    biases: int


class Costs:
    """Multiply-accumulates and parameters of an edge half for any number of channels left, without running it.

    Args:
        edge: not yet pruned, in eval mode.
        x: (1, C, H, W).
        groups: as `prunable` found them.
        macs: of the whole, as the cut has them; what no layer with weights computes does not shrink.
    """

    def __init__(self, edge: nn.Module, x: Tensor, groups: Sequence[Group], macs: int) -> None:
        self.groups = groups
        self.macs, self.parameters = macs, sum(p.numel() for p in edge.parameters())
        work = _work(edge, x)
        touched = sorted({name for g in groups for name, _ in (*g.outputs, *g.inputs)})
        self._layers = {name: _layer(edge.get_submodule(name), work.get(name, 0)) for name in touched}

    def of(self, left: Sequence[int]) -> tuple[float, float]:
        """Shares of MACs and of parameters that remain. left: channels that stay, for every group."""
        out, into = dict.fromkeys(self._layers, 1.0), dict.fromkeys(self._layers, 1.0)
        for group, stay in zip(self.groups, left, strict=True):
            for name, each in group.outputs:
                out[name] -= each * (group.width - stay) / self._layers[name].outputs
            for name, each in group.inputs:
                into[name] -= each * (group.width - stay) / self._layers[name].inputs
        macs, parameters = float(self.macs), float(self.parameters)
        for name, layer in self._layers.items():
            macs -= (1 - out[name] * into[name]) * layer.macs
            parameters -= (1 - out[name] * into[name]) * layer.weights + (1 - out[name]) * layer.biases
        return macs / self.macs, parameters / self.parameters

    def choose(
        self, masks: Sequence[Tensor], ranks: Sequence[Tensor], *, macs: float, parameters: float, least: int
    ) -> list[list[int]]:
        """Channels that go, for every group: all whose mask is 0, then the smallest, until both shares are met.

        Args:
            masks: (width,) for every group.
            ranks: (width,) in [0, 1] for every group; the lower goes first where masks are equal.
            macs: share of the multiply-accumulates that may stay.
            parameters: share of the parameters that may stay.
            least: channels that stay in every group.

        Raises:
            InputError: the shares cannot be met; the message has the least that can.
        """
        self.require(macs, parameters, least)
        order = sorted(
            (abs(m), r, g, k)
            for g, (mask, rank) in enumerate(zip(masks, ranks, strict=True))
            for k, (m, r) in enumerate(zip(mask.tolist(), rank.tolist(), strict=True))
        )
        dead: list[list[int]] = [[] for _ in self.groups]
        left = [g.width for g in self.groups]
        for size, _, g, k in order:
            if size > 0 and self.met(left, macs, parameters):
                break
            if left[g] > least:
                dead[g].append(k)
                left[g] -= 1
        return dead

    def met(self, left: Sequence[int], macs: float, parameters: float) -> bool:
        """Whether both shares are met with these many channels left."""
        found = self.of(left)
        return found[0] <= macs + 1e-9 and found[1] <= parameters + 1e-9

    def require(self, macs: float, parameters: float, least: int) -> None:
        """See `choose`.

        Raises:
            InputError: the shares cannot be met.
        """
        smallest = [min(least, g.width) for g in self.groups]
        if not self.met(smallest, macs, parameters):
            work, weights = self.of(smallest)
            raise InputError(
                f"expected shares that pruning can reach, got budget={macs:g}, parameters={parameters:g}, where "
                f"{work:.3f} of the MACs and {weights:.3f} of the parameters stay at least; "
                f"use patrol:budget={min(1.0, work + 0.005):.2f},parameters={min(1.0, weights + 0.005):.2f}."
            )


def recounted(split: Split) -> Split:
    """The same halves; the cut says what the edge half costs now. Its `image` has to be known."""
    like = next(split.edge.parameters(), torch.zeros(()))
    x = torch.zeros(1, *split.image, device=like.device)
    macs = module_macs(split.edge, split.image, x)
    try:
        peak = trace(split.edge, x).peak_bytes
    except CutError:
        peak = largest_step(split.edge, x)
    weights: list[Tensor] = list(split.edge.parameters())
    cut = split.cut.model_copy(
        update={
            "edge_macs": macs,
            "edge_params": sum(w.numel() for w in weights),
            "edge_share": macs / max(1, macs + split.cut.cloud_macs),
            "edge_peak_bytes": peak,
        }
    )
    return Split(split.edge, split.cloud, cut, split.image)


def _work(edge: nn.Module, x: Tensor) -> dict[str, int]:
    """Multiply-accumulates of each layer, by name."""
    names, found = {module: name for name, module in edge.named_modules()}, dict[str, int]()

    def note(layer: nn.Module, _: Any, out: Any) -> None:
        if isinstance(layer, _ConvNd | nn.Linear):
            places = out[0].numel() // sizes(layer)[0]
            found[names[layer]] = found.get(names[layer], 0) + places * layer.weight.numel()

    run_noting(edge, x, note)
    return found


def _layer(layer: nn.Module, macs: int) -> _Layer:
    """BatchNorm has nothing but what falls with its outputs."""
    counts = {name: value.numel() for name, value in layer.named_parameters(recurse=False)}
    weights = 0 if isinstance(layer, _BatchNorm) else counts["weight"]
    return _Layer(*sizes(layer), macs, weights, sum(counts.values()) - weights)
