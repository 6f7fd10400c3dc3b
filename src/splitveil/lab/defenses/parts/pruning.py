"""Soft masks on the channels of an edge half, and their physical removal (Lin et al. 2019, GAL; Fang et al. 2023)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

SAME = 1e-4
"""Relative difference up to which removing a channel counts as the same as masking it."""

ROOTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Group(NamedTuple):
    """Channels that can only go together: the k-th of every layer named here.

    Attributes:
        root: the layer whose removal takes the others along.
        width: channels.
        masked: layers whose output a mask scales: BatchNorm, or a layer that none follows.
        outputs: layers that lose outputs, and how many for one channel.
        inputs: layers that lose inputs, and how many for one channel.
    """

    root: str
    width: int
    masked: tuple[str, ...]
    outputs: tuple[tuple[str, int], ...]
    inputs: tuple[tuple[str, int], ...]


def prunable(edge: nn.Module, x: Tensor) -> tuple[Group, ...]:
    """Every group of channels inside `edge` that can be removed, from Torch-Pruning's dependency graph.

    What crosses the cut stays. Each group is tried on a copy with random weights: removing a channel has to give what
    masking it gives, so what the graph gets wrong (padded shortcuts, layer normalisation) stays too. Layers whose
    channels are concatenated, transposed convolutions, and grouped ones that are not depthwise, stay (our reading).

    Args:
        edge: in eval mode.
        x: (N, C, H, W), only its shape matters.

    Returns:
        In the order of the edge half's layers.
    """
    names = {module: name for name, module in edge.named_modules()}
    followed = _followed_by_norm(edge, x)
    found = []
    for parts in _graph(edge, x).get_all_groups(root_module_types=ROOTS):
        group = _group([(d.target.module, d.target.name, d.handler.__name__, i) for d, i in parts], names, followed)
        if group is not None:
            found.append(group)
    lively, order = _lively(edge), list(names.values())
    return tuple(g for g in sorted(found, key=lambda g: order.index(g.root)) if _comes_off(lively, g, x))


def remove(edge: nn.Module, x: Tensor, groups: Sequence[Group], dead: Sequence[Sequence[int]]) -> None:
    """Take channels out of `edge`, in place. dead: for every group the channels that go; x: as for `prunable`."""
    graph = _graph(edge.eval(), x)
    for group, channels in zip(groups, dead, strict=True):
        if channels:
            root = edge.get_submodule(group.root)
            cut_off = graph.get_pruner_of_module(root).prune_out_channels
            graph.get_pruning_group(root, cut_off, idxs=sorted(channels)).prune()


def attach(edge: nn.Module, groups: Sequence[Group], masks: Sequence[nn.Parameter]) -> None:
    """From now on every mask (width,) scales its group through the layers' weights; `edge` does not own the masks."""
    for group, mask in zip(groups, masks, strict=True):
        for name in group.masked:
            layer = edge.get_submodule(name)
            for weight in _own(layer):
                parametrize.register_parametrization(layer, weight, _Scale(mask))


def fold(edge: nn.Module, groups: Sequence[Group]) -> None:
    """Multiply the masks into the weights for good: ``edge(x)`` stays, its weights are plain again."""
    for group in groups:
        for name in group.masked:
            layer = edge.get_submodule(name)
            for weight in _own(layer):
                if parametrize.is_parametrized(layer, weight):
                    parametrize.remove_parametrizations(layer, weight, leave_parametrized=True)


def shrunk(mask: Tensor, by: float) -> Tensor:
    """The proximal step of ``by * ||m||_1``: ``sign(m) * max(|m| - by, 0)``, as GAL and FISTA have it."""
    return mask.sign() * (mask.abs() - by).clamp_min(0)


def reshape(edge: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give the layers of `edge` the shapes in `weights`, by name; the values are zero until they are loaded."""
    for path, layer in edge.named_modules():
        prefix = f"{path}." if path else ""
        changed = False
        for name, old in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            new = weights.get(prefix + name)
            if new is not None and new.shape != old.shape:
                empty = torch.zeros(new.shape, dtype=old.dtype)
                setattr(layer, name, nn.Parameter(empty) if isinstance(old, nn.Parameter) else empty)
                changed = True
        if changed:
            _statesizes(layer)


def weight_ranks(edge: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
    """For every group (width,) in [0, 1]: the order of the mean sizes of its masked layers' weights."""
    ranks = []
    for group in groups:
        layers = [edge.get_submodule(name) for name in group.masked]
        size = torch.stack([layer.get_parameter("weight").detach().abs().flatten(1).mean(1)
                            if layer.get_parameter("weight").ndim > 1 else layer.get_parameter("weight").detach().abs()
                            for layer in layers]).mean(0)  # fmt: skip
        ranks.append(size.argsort().argsort() / max(1, group.width - 1))
    return ranks


class _Scale(nn.Module):
    def __init__(self, mask: nn.Parameter) -> None:
        super().__init__()
        self._mask = (mask,)  # in a tuple, so that only its owner saves it

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self._mask[0].reshape(-1, *[1] * (weight.ndim - 1))


def _graph(edge: nn.Module, x: Tensor) -> Any:
    return torch_pruning.DependencyGraph().build_dependency(edge, example_inputs=x[:1], verbose=False)


def _group(
    parts: list[tuple[nn.Module, str, str, list[int]]], names: Mapping[nn.Module, str], followed: set[nn.Module]
) -> Group | None:
    """None where the channels cross the cut, or are laid out in a way that one mask does not fit."""
    root, width = parts[0][0], len(parts[0][3])
    masked, outputs, inputs = [], [], []
    for module, label, handler, index in parts:
        if label.startswith("_OutputOp"):
            return None
        if not isinstance(module, _ConvNd | nn.Linear | _BatchNorm):
            continue
        if isinstance(module, _ConvNd) and (module.transposed or module.groups not in (1, module.out_channels)):
            return None
        if handler == "prune_in_channels" and not isinstance(module, _BatchNorm):
            inputs.append((names[module], len(index) // width))
            continue
        if list(index) != list(range(width)) or sizes(module)[0] != width or not _own(module):
            return None
        if (names[module], 1) in outputs:
            continue  # a layer that is called again
        outputs.append((names[module], 1))
        if module not in followed:
            masked.append(names[module])
    return Group(names[root], width, tuple(masked), tuple(outputs), tuple(inputs)) if width > 1 and masked else None


def _comes_off(lively: nn.Module, group: Group, x: Tensor) -> bool:
    work = copy.deepcopy(lively)
    channels = [0, group.width - 1] if group.width > 2 else [0]
    given = torch.rand(2, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    with torch.no_grad():
        for name in group.masked:
            layer = work.get_submodule(name)
            for weight in _own(layer):
                layer.get_parameter(weight)[channels] = 0.0
        masked = work(given)
    try:
        remove(work, x, [group], [channels])
        with torch.no_grad():
            removed = work(given)
    except Exception:  # the graph was wrong about it: the layers no longer fit, in whatever way
        return False
    return removed.shape == masked.shape and bool((removed - masked).abs().max() <= SAME * masked.abs().max())


def _lively(edge: nn.Module) -> nn.Module:
    """A copy with random weights, none of them zero; which groups there are is a question of architecture only."""
    work, draws = copy.deepcopy(edge).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in work.parameters():
            fan = value[0].numel() if value.ndim > 1 else 1
            value.copy_(torch.randn(value.shape, generator=draws) / fan**0.5)
        for layer in work.modules():
            if isinstance(layer, _BatchNorm) and layer.running_var is not None:
                layer.running_var.copy_(0.5 + torch.rand(layer.running_var.shape, generator=draws))
    return work


def _followed_by_norm(edge: nn.Module, x: Tensor) -> set[nn.Module]:
    """Layers whose output goes into a BatchNorm."""
    made, taken = dict[int, nn.Module](), set[int]()
    kept = []  # so that no two tensors share an id

    def note(layer: nn.Module, given: Any, out: Any) -> None:
        kept.append((given, out))
        if isinstance(layer, _BatchNorm):
            taken.add(id(given[0]))
        made[id(out)] = layer

    run_noting(edge, x, note)
    return {layer for key, layer in made.items() if key in taken}


def run_noting(edge: nn.Module, x: Tensor, note: Any) -> None:
    layers = [m for m in edge.modules() if isinstance(m, _ConvNd | nn.Linear | _BatchNorm)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            edge(x[:1])
    finally:
        for handle in handles:
            handle.remove()


def _own(layer: nn.Module) -> list[str]:
    return [name for name in ("weight", "bias") if getattr(layer, name, None) is not None]


def sizes(layer: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a layer."""
    if isinstance(layer, _ConvNd):
        return layer.out_channels, layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    count = int(getattr(layer, "num_features", 1))
    return count, count


def _statesizes(layer: nn.Module) -> None:
    if isinstance(layer, _ConvNd):
        depthwise = layer.groups > 1 and layer.groups == layer.out_channels
        layer.out_channels = layer.weight.shape[0]
        layer.groups = layer.out_channels if depthwise else layer.groups
        layer.in_channels = layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _BatchNorm):
        layer.num_features = layer.weight.shape[0]
