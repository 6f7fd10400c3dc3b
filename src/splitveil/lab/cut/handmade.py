"""Halves that somebody wrote by hand, for models that no tracer can follow."""

import torch
from torch import Tensor, nn

from splitveil.core.arguments import checked
from splitveil.core.errors import CutError, SplitVeilError
from splitveil.core.records import Cut
from splitveil.lab.cut.capture import first_line, no_fast_path
from splitveil.lab.cut.costs import FP32_BYTES, largest_step, module_macs, numel
from splitveil.lab.cut.flow import INPUT
from splitveil.lab.cut.literals import LARGE
from splitveil.lab.cut.pieces import Split
from splitveil.lab.cut.probing import converted, like_weights, random_images
from splitveil.lab.cut.traced import trace
from splitveil.lab.probing import copied, materialized, probe, sheltered
from splitveil.lab.seeds import seeded
from splitveil.lab.wrappers import unwrapped

NAME = "custom"


@checked
def halves(edge: nn.Module, cloud: nn.Module, example: Tensor) -> Split:
    """Join copies of two hand-built halves as the cut ``custom``; `example`: (N, C, H, W), float.

    Peak memory comes from the edge half's graph; without one it is the input and output of its hungriest layer.
    Weights of another kind than 32-bit floats are converted to those, or to 64-bit ones for an example of such.

    Raises:
        CutError: z is not one floating-point tensor with the batch first, the halves share weights, one of them
            computes nothing or is a scripted program, or its answers are not finite or depend on the other images of
            the batch.
    """
    edge, cloud = unwrapped(edge), unwrapped(cloud)
    shared = {id(p) for p in edge.parameters()} & {id(p) for p in cloud.parameters()}
    if shared:
        raise CutError("both halves hold the same weights; give each half its own.")
    edge, cloud = (converted(copied(half), example).eval() for half in (edge, cloud))
    x = random_images(like_weights(example[:1], nn.ModuleList([edge, cloud])), LARGE)
    materialized(nn.Sequential(edge, cloud), x)
    for batch in (1, LARGE):
        try:
            with torch.no_grad(), no_fast_path(), seeded(0):
                z = sheltered(edge)(x[:batch].clone())
                _expect_batched(z, batch, "the edge half")
                _expect_batched(sheltered(cloud)(z), batch, "the cloud half")
        except SplitVeilError:
            raise
        except Exception as error:  # the user's code: anything can be raised
            raise CutError(f"the halves do not run on the example: {first_line(error)}; make them fit.") from error
    with no_fast_path():
        for who, half, given in (("edge", edge, x), ("cloud", cloud, z)):
            if told := probe(half, (given,), images=half is edge).refused:
                raise CutError(f"cannot use the {who} half: {told}.")
    shape, x = tuple(z.shape[1:]), x[:1]
    mine, theirs = module_macs(sheltered(edge), tuple(x.shape[1:]), x), module_macs(sheltered(cloud), shape, x)
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
        return largest_step(sheltered(edge), x)


def _expect_batched(value: object, batch: int, who: str) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape[:1] != (batch,):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CutError(f"expected {who} to return one float tensor with {batch} images first, got {got}.")
