"""Halves that somebody wrote by hand, for models that no tracer can follow."""

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from splitveil.cut.capture import first_line
from splitveil.cut.costs import FP32_BYTES, largest_step, module_macs, numel
from splitveil.cut.flow import INPUT
from splitveil.cut.pieces import Split
from splitveil.cut.traced import trace
from splitveil.errors import CutError
from splitveil.records import Cut

NAME = "custom"


def halves(edge: nn.Module, cloud: nn.Module, example: Tensor) -> Split:
    """Join copies of two hand-built halves as the cut ``custom``; `example`: (N, C, H, W), float.

    Peak memory comes from the edge half's graph; without one it is the input and output of its hungriest layer.

    Raises:
        CutError: z is not one floating-point tensor with the batch first, the halves share weights, or one of them
            computes nothing.
    """
    shared = {id(p) for p in edge.parameters()} & {id(p) for p in cloud.parameters()}
    if shared:
        raise CutError("both halves hold the same weights; give each half its own.")
    edge, cloud = copy.deepcopy((edge, cloud))
    edge.eval()
    cloud.eval()
    x = example[:1].to(next(chain(edge.parameters(), cloud.parameters()), example).device)
    for batch in (1, 3):
        many = x.expand(batch, *x.shape[1:]).contiguous()
        try:
            with torch.no_grad():
                z = edge(many)
                _expect_batched(z, batch, "the edge half")
                _expect_batched(cloud(z), batch, "the cloud half")
        except (RuntimeError, ValueError, TypeError) as error:
            raise CutError(f"the halves do not run on the example: {first_line(error)}; make them fit.") from error
    shape = tuple(z.shape[1:])
    mine, theirs = module_macs(edge, tuple(x.shape[1:]), x), module_macs(cloud, shape, x)
    if not mine:
        raise CutError(f"the edge half multiplies nothing, so {INPUT} would cross; move a layer with weights into it.")
    if not theirs:
        raise CutError("the cloud half multiplies nothing; move a layer with weights into it.")
    cut = Cut(
        name=NAME,
        index=0,
        shape=shape,
        bytes_fp32=FP32_BYTES * numel(shape),
        bytes_u8=numel(shape),
        edge_macs=mine,
        cloud_macs=theirs,
        edge_params=sum(p.numel() for p in edge.parameters()),
        cloud_params=sum(p.numel() for p in cloud.parameters()),
        edge_share=mine / (mine + theirs),
        edge_peak_bytes=_peak(edge, x),
    )
    return Split(edge, cloud, cut, tuple(x.shape[1:]))


def _peak(edge: nn.Module, x: Tensor) -> int:
    try:
        return trace(edge, x).peak_bytes
    except CutError:
        return largest_step(edge, x)


def _expect_batched(value: object, batch: int, who: str) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape[:1] != (batch,):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CutError(f"expected {who} to return one float tensor with {batch} images first, got {got}.")
