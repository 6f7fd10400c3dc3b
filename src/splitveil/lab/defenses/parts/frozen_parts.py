"""A traced edge half taken apart, for a defence that acts at several of its layers and trains none of them."""

import logging
from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut.costs import module_macs
from splitveil.lab.cut.literals import OWN
from splitveil.lab.cut.pieces import Piece, piece

LARGEST = 512
"""Side of the largest image looked for."""


class Frozen(nn.Module):
    """A part of the edge half whose weights are buffers and which is always in eval mode, so that nothing moves it."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        for module in part.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                del module._parameters[name]
                module.register_buffer(name, weight.detach())
        self.part = part.eval()

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, h: Tensor) -> Tensor:
        """What the part computes."""
        out: Tensor = self.part(h)
        return out


def parted(edge: nn.Module, layers: int) -> list[nn.Module]:
    """A traced edge half in `layers` parts, cut where one tensor crosses just before a layer with weights.

    Raises:
        InputError: not traced, or fewer such places than needed.
    """
    if not isinstance(edge, Piece):
        raise InputError(
            f"expected a traced edge half for several layers, got {type(edge).__name__}; use pripro:layers=1."
        )
    found = places(edge)
    if len(found) < layers - 1:
        raise InputError(f"expected {layers - 1} earlier places in the edge half, got {len(found)}; "
                         f"use pripro:layers={len(found) + 1} or less.")  # fmt: skip
    nodes = list(edge.graph.nodes)
    inner = [found[j * len(found) // layers] for j in range(1, layers)]
    ends: list[fx.Node] = [next(n for n in nodes if n.op == "placeholder"), *inner, nodes[-1].args[0]]
    return [piece(edge, a, b, "Part", edge._saved).eval() for a, b in pairwise(ends)]


def places(edge: fx.GraphModule) -> list[fx.Node]:
    """Between any two layers with weights, the last node that alone crosses to what follows, where there is one."""
    nodes = [n for n in edge.graph.nodes if n.op not in ("get_attr", "output") and OWN not in n.meta]
    position = {n: i for i, n in enumerate(nodes)}
    found: list[fx.Node] = []
    needed, last, weighted = 0, None, False
    for i, node in enumerate(nodes[:-1]):
        if _weighted(edge, node):
            found += [last] if last is not None and weighted else []
            last, weighted = None, True
        if needed <= i and weighted:
            last = node
        needed = max([needed, *(position.get(u, len(nodes)) for u in node.users if OWN not in u.meta)])
    if last is not None and _weighted(edge, nodes[-1]):
        found.append(last)
    return found


def image_like(edge: nn.Module, shape: tuple[int, ...], macs: int) -> Tensor:
    """Zeros (1, C, H, W) of the size of image for which the edge half costs and yields just that.

    Raises:
        InputError: no such size.
    """
    like = next(edge.parameters(), torch.zeros(()))
    sizes = [(side * 2**k, other * 2**k) for side, other in [shape[1:]] for k in range(6)] if len(shape) == 3 else []
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # torch logs every size that does not fit
    try:
        for height, width in [*sizes, *((s, s) for s in range(4, LARGEST + 1))]:
            for channels in (3, 1):
                x = torch.zeros(1, channels, height, width, device=like.device)
                try:
                    fits = module_macs(edge, tuple(x.shape[1:]), x) == macs
                except (RuntimeError, ValueError):
                    continue
                with torch.no_grad():
                    if fits and edge(x).shape[1:] == shape:
                        return x
    finally:
        logging.disable(before)
    raise InputError("the size of image is not to be told from the edge half; use pripro:layers=1.")


def _weighted(edge: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(p.ndim > 1 for p in edge.get_submodule(str(node.target)).parameters())
    own = {name for name, p in edge.named_parameters() if p.ndim > 1}
    return any(n.op == "get_attr" and n.target in own for n in node.all_input_nodes)
