"""Local constants against singular values, and what must not lower them: scale, dead channels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.cut import Split, trace
from splitveil.lab.defenses.parts.lipschitz import MODES, Blocks, local_constants
from splitveil.lab.defenses.parts.pruning import attach, prunable
from splitveil.lab.models.loader import load_model


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def constants(blocks: list[Callable[[Tensor], Tensor]], x: Tensor, mode: str, steps: int = 1) -> Tensor:
    torch.manual_seed(0)
    return local_constants(blocks, x, mode=mode, steps=steps)


def resnet_split() -> Split:
    torch.manual_seed(0)
    net = load_model("resnet20", shape=(3, 8, 8), classes=10, weights=None).model
    return trace(net, torch.zeros(2, 3, 8, 8)).split("layer2")


def test_a_linear_blocks_constant_is_its_singular_value() -> None:
    weight, x = draws(5, 8), 2 * draws(32, 8, seed=1)
    matrix = weight / (x @ weight.T).std(0, correction=0)[:, None] * x.std(0, correction=0)
    largest = torch.linalg.svdvals(matrix)[0].item() * (8 / 5) ** 0.5
    blocks: list[Callable[[Tensor], Tensor]] = [lambda a: a @ weight.T]
    power, many = constants(blocks, x, "power", 1).item(), constants(blocks, x, "power", 60).item()
    mean, most = constants(blocks, x, "mean").item(), constants(blocks, x, "max").item()
    assert many == pytest.approx(largest, rel=1e-3)
    assert mean < most < largest
    assert mean < power <= largest * (1 + 1e-5)
    # A random direction meets the root mean square of the singular values.
    rms = (matrix.square().sum() / 5).sqrt().item()
    assert mean == pytest.approx(rms, rel=0.15)


@pytest.mark.parametrize("mode", MODES)
def test_scaling_the_edge_changes_neither_the_constants_nor_pulls_at_the_scale(mode: str) -> None:
    net, x = nn.Conv2d(3, 6, 3), draws(8, 3, 6, 6).sigmoid()
    scale = torch.ones((), requires_grad=True)
    last = nn.Conv2d(6, 4, 3)

    def first(a: Tensor) -> Tensor:
        out: Tensor = net(a).relu()
        return out

    plain = constants([first, lambda a: last(a) * scale], x, mode)
    loud = constants([lambda a: 10 * first(a), lambda a: last(a / 10) * 10], x, mode)
    assert torch.allclose(plain, loud, rtol=1e-3)
    (pull,) = torch.autograd.grad(plain.sum(), scale)
    assert abs(pull.item()) < 1e-3 * plain.sum().item()


@pytest.mark.parametrize("mode", MODES)
def test_dead_channels_are_no_way_out(mode: str) -> None:
    weight, x = draws(4, 3, 1, 1), draws(8, 3, 6, 6).sigmoid()
    dead = torch.cat([weight, torch.zeros(4, 3, 1, 1)])
    live, half = (
        constants([lambda a, w=w: nn.functional.conv2d(a, w)], x, mode, 20) for w in (weight, dead)  # type: ignore[misc]
    )  # fmt: skip
    assert torch.allclose(live, half, rtol=1e-3)


def test_constants_of_one_image_pair_multiply_to_the_whole() -> None:
    split, x = resnet_split(), draws(2, 3, 8, 8).sigmoid()
    parts = Blocks(split.edge, x, 3).of(split.edge)
    assert len(parts) == 3
    torch.manual_seed(5)
    there = x + 0.02 * torch.randn_like(x)

    def ratio(a: Tensor, b: Tensor) -> Tensor:
        return ((b - a) / a.std((0, 2, 3), correction=0, keepdim=True)).flatten(1).square().mean(1).sqrt()

    whole = ratio(split.edge(x), split.edge(there)) / ratio(x, there)
    torch.manual_seed(5)
    first = local_constants([lambda a: split.edge(a)], x, mode="max", sigma=0.02)
    assert first.item() == pytest.approx(whole.max().item(), rel=1e-3)
    torch.manual_seed(5)
    each = local_constants(parts, x, mode="max", sigma=0.02)
    assert each.prod().item() >= whole.max().item() * 0.999


def test_blocks_compute_with_the_edges_own_weights_and_leave_its_statistics() -> None:
    split, x = resnet_split(), draws(4, 3, 8, 8).sigmoid()
    edge = split.edge
    blocks = Blocks(edge, x, 3)
    groups = prunable(edge, x)
    masks = [nn.Parameter(0.5 * torch.ones(g.width)) for g in groups]
    attach(edge, groups, masks)
    z = x
    for block in blocks.of(edge):
        z = block(z)
    assert torch.allclose(z, edge(x), atol=1e-6)
    edge.train()
    statistics = {name: b.clone() for name, b in edge.named_buffers()}
    constants(blocks.of(edge), x, "mean").sum().backward()
    assert all(torch.equal(b, statistics[name]) for name, b in edge.named_buffers())
    assert all(m.grad is not None and m.grad.abs().sum() > 0 for m in masks)
    assert all(p.grad is not None for name, p in edge.named_parameters() if "conv" in name)


def test_an_edge_without_cuts_is_one_block() -> None:
    edge = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    blocks = Blocks(edge.eval(), torch.zeros(1, 3, 2, 2), 3)
    x = draws(5, 3, 2, 2)
    assert len(blocks) == 1
    assert torch.equal(blocks.of(edge)[0](x), edge(x))
