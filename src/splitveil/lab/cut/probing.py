"""A model made ready to be traced: a copy that takes the image alone, and what is found by running it."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from splitveil.core.errors import CutError, SplitVeilError
from splitveil.lab.cut.capture import no_fast_path
from splitveil.lab.cut.flow import Flow
from splitveil.lab.probing import (
    chosen,
    copied,
    described,
    held,
    in_other_company,
    materialized,
    misfit,
    plain,
    probe,
    same_middle,
    sheltered,
)
from splitveil.lab.seeds import seeded

TINY = 1e-3


def made_ready(model: nn.Module, example: Tensor, logits: str | int | None) -> nn.Module:
    """A copy in eval mode, called with the image alone: its other arguments keep their defaults.

    logits: which part of the answer it gives, where that is not one tensor.

    Raises:
        InputError: it holds something that cannot be copied.
    """
    work = plain(converted(copied(model), example))
    base: Any = type(work)

    class OneArgument(base):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Any:
            answer = super().forward(x)
            return answer if logits is None else chosen(answer, logits)

    work.__class__ = OneArgument
    materialized(work.eval(), random_images(like_weights(example, work), 1))
    return work


def converted(model: nn.Module, example: Tensor) -> nn.Module:
    """The same model, in place, in 32-bit floats, 64-bit for an example of such; as it is where all weights are."""
    dtype = torch.float64 if example.dtype == torch.float64 else torch.float32
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return model if kinds <= {dtype} else model.to(dtype)


def like_weights(example: Tensor, model: nn.Module) -> Tensor:
    """`example` where the weights are, in 32-bit floats, or in 64-bit ones as it is."""
    dtype = torch.float64 if example.dtype == torch.float64 else torch.float32
    return example.to(next(model.parameters(), example).device, dtype)


def random_images(example: Tensor, n: int) -> Tensor:
    """(n, C, H, W) like `example`, the same ones each time."""
    noise = torch.rand((n, *example.shape[1:]), generator=torch.Generator().manual_seed(n))
    return noise.to(example)


def output(model: nn.Module, x: Tensor, seed: int) -> Tensor:
    """What the model answers when it is called for the first time; it is left as it is.

    Raises:
        CutError: it does not take such images, or answers with something else than one tensor.
    """
    try:
        with torch.no_grad(), no_fast_path(), seeded(seed):
            out = sheltered(model)(x.clone())
    except SplitVeilError:
        raise
    except Exception as error:  # the user's code: anything can be raised
        with no_fast_path():
            told = misfit(model, x, error)
        raise CutError(f"the model does not run on images of shape {tuple(x.shape[1:])}: {told}.") from error
    if not isinstance(out, Tensor):
        raise CutError(
            f"expected a model that returns one tensor, got {described(out)}; say which part holds the logits: "
            "logits=KEY in Python, --logits KEY on the command line."
        )
    return out


def hold_training(model: nn.Module, x: Tensor) -> None:
    """Let parts that train in eval mode, from the beginning or once the model runs, go on doing so."""
    ran = sheltered(model)
    with torch.no_grad(), no_fast_path(), seeded(0):
        ran(x.clone())
    held(model, ran)


def probed(model: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], str]:
    """Uncovers weights that start at zero (`cover`): their values by name; how the model is random, if it is.

    x: (3, C, H, W).

    Raises:
        CutError: its answers are not finite, or depend on the other images of the batch or on earlier calls.
    """
    with no_fast_path(), torch.no_grad(), seeded(0):
        finite = bool(sheltered(model)(x.clone()).isfinite().all())
        hidden = _uncover(model) if finite else {}
        found = probe(model, (x,), images=True)
    if found.refused:
        raise CutError(f"cannot cut this model: {found.refused}.")
    return hidden, found.random


def _uncover(model: nn.Module) -> dict[str, Tensor]:
    """Give life to weights that start at zero and would make any comparison pass; the old values by name."""
    hidden = {}
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.numel() and weight.abs().max() < TINY:
            hidden[name] = weight.detach().clone()
            weight.data.copy_(torch.randn(weight.shape, generator=generator) / 10)
    return hidden


def cover(model: nn.Module, hidden: dict[str, Tensor]) -> None:
    """Give weights their old values back."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in hidden.keys() & parameters.keys():
        parameters[name].data.copy_(hidden[name])


def refuse_joined(flow: Flow, x: Tensor) -> None:
    """Features may depend on the other images of the batch where the answer does not. x: (3, C, H, W).

    Raises:
        CutError: at the first legal cut where they do.
    """
    names = {points[0].node: points[0].name for points in flow.legal}
    axes = {node: flow.axis(node) or 0 for node in names}

    def ran(inputs: tuple[Tensor, ...]) -> dict[fx.Node, Tensor]:
        kept = dict[fx.Node, Tensor]()
        with torch.no_grad(), no_fast_path(), seeded(0):
            _Keeper(flow.module, axes, kept).run(*inputs)
        return kept

    runs = ran((x,)), in_other_company(ran, (x,))
    for node, name in names.items():
        if not same_middle(*(kept[node] for kept in runs)):
            raise CutError(
                f"cannot cut this model: its features at {name!r} depend on the other images of the batch; in eval "
                "mode let it treat every image by itself."
            )


class _Keeper(fx.Interpreter):
    """Runs a graph and keeps what some of its nodes yield, the batch first; `wanted`: its axis in each."""

    def __init__(self, module: fx.GraphModule, wanted: dict[fx.Node, int], kept: dict[fx.Node, Tensor]) -> None:
        super().__init__(module)
        self.wanted, self.kept = wanted, kept

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.wanted:
            self.kept[n] = value.movedim(self.wanted[n], 0).clone()
        return value
