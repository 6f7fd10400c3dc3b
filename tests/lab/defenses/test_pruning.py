"""Removing a channel is masking it: groups, soft masks, what stays under a budget, and shapes restored."""

import copy

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.cut.costs import module_macs
from splitveil.lab.defenses.parts.budget import Costs, recounted
from splitveil.lab.defenses.parts.pruning import Group, attach, fold, prunable, remove, reshape, shrunk, weight_ranks
from splitveil.lab.models.loader import load_model
from splitveil.lab.models.resnet import CifarResNet


def split_of(model: str, at: str) -> Split:
    """``projected``: a residual net whose shortcuts have weights, which ResNet-20's have not."""
    shape = (3, 8, 8)
    torch.manual_seed(0)
    net = (
        CifarResNet((2, 1), (8, 16), 3, 10, padded=False)
        if model == "projected"
        else load_model(model, shape=shape, classes=10, weights=None).model
    )
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.bias.normal_()  # so that a channel that is still there shows
    return trace(net, torch.zeros(2, *shape)).split(at)


def draws(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_a_proximal_step_by_hand() -> None:
    found = shrunk(torch.tensor([1.0, 0.25, 0.1, 0.0, -0.1, -0.5]), 0.2)
    assert torch.allclose(found, torch.tensor([0.8, 0.05, 0.0, 0.0, 0.0, -0.3]))


def test_a_residual_nets_groups_are_the_insides_of_the_blocks_that_the_cut_is_added_to() -> None:
    groups = prunable(split_of("resnet20", "layer2").edge, draws(1, 3, 8, 8))
    assert {g.root: g.width for g in groups} == {
        "layer1.0.conv1": 16, "layer1.1.conv1": 16, "layer1.2.conv1": 16,
        "layer2.0.conv1": 32, "layer2.1.conv1": 32, "layer2.2.conv1": 32,
    }  # fmt: skip
    assert groups[0].masked == ("layer1.0.bn1",)


def test_channels_that_are_added_share_a_mask() -> None:
    groups = {g.root: g for g in prunable(split_of("projected", "layer2").edge, draws(1, 3, 8, 8))}
    assert set(groups["conv1"].masked) == {"bn1", "layer1.0.bn2", "layer1.1.bn2"}
    assert dict(groups["conv1"].inputs).keys() >= {"layer2.0.shortcut.0", "layer2.0.conv1"}
    assert not any("layer2.0.conv2" in dict(g.outputs) for g in groups.values())


class Padded(nn.Module):
    """Channels move between two layers, which no graph of dependencies sees."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.end = nn.Conv2d(3, 4, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.end(torch.relu(self.two(nn.functional.pad(self.one(x), (0, 0, 0, 0, 1, 3)))))
        return out


def test_what_does_not_come_off_like_a_mask_stays() -> None:
    x = draws(1, 3, 8, 8)
    assert [g.root for g in prunable(Padded().eval(), x)] == ["two"]
    live = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 4, 3))
    assert prunable(live, x) == ()
    assert len(prunable(nn.Sequential(live[0], nn.ReLU(), live[2]), x)) == 1
    assert prunable(nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(1, 6), nn.ReLU(), nn.Conv2d(6, 4, 1)), x) == ()


@pytest.mark.parametrize(("model", "at"), [("small", "relu2"), ("resnet20", "layer2"), ("projected", "layer2")])
def test_a_mask_of_zero_is_a_removed_channel(model: str, at: str) -> None:
    split = split_of(model, at)
    edge, x = split.edge, draws(4, 3, 8, 8)
    plain, names = edge(x), list(edge.state_dict())
    groups = prunable(edge, x)
    costs = Costs(edge, x, groups, split.cut.edge_macs)
    masks = [nn.Parameter(torch.ones(g.width)) for g in groups]
    attach(edge, groups, masks)
    assert torch.equal(edge(x), plain)
    generator = torch.Generator().manual_seed(2)
    for mask in masks:
        mask.data.uniform_(-1, 1, generator=generator)[::3] = 0.0
    masked = edge(x)
    assert not torch.allclose(masked, plain, atol=1e-2)
    assert torch.equal(copy.deepcopy(edge)(x), masked)
    fold(edge, groups)
    assert torch.allclose(edge(x), masked, atol=1e-5)
    assert list(edge.state_dict()) == names
    before = {k: v.numel() for k, v in edge.state_dict().items()}
    remove(edge, x, groups, [list(range(0, g.width, 3)) for g in groups])
    assert torch.allclose(edge(x), masked, atol=1e-5)
    assert all(edge.state_dict()[f"{g.root}.weight"].numel() < before[f"{g.root}.weight"] for g in groups)
    left = [g.width - len(range(0, g.width, 3)) for g in groups]
    macs, parameters = costs.of(left)
    assert macs == pytest.approx(module_macs(edge, (3, 8, 8), x[:1]) / split.cut.edge_macs, rel=1e-6)
    assert parameters == pytest.approx(sum(p.numel() for p in edge.parameters()) / split.cut.edge_params, rel=1e-6)


def test_another_edge_takes_the_shapes_of_pruned_weights() -> None:
    one, other, x = split_of("projected", "layer2"), split_of("projected", "layer2"), draws(2, 3, 8, 8)
    groups = prunable(one.edge, x)
    remove(one.edge, x, groups, [[0, 2, 5]] * len(groups))
    reshape(other.edge, one.edge.state_dict())
    other.edge.load_state_dict(one.edge.state_dict())
    assert torch.equal(other.edge(x), one.edge(x))
    assert recounted(other).cut == recounted(one).cut
    assert recounted(one).cut.edge_macs < one.cut.edge_macs


def test_depthwise_layers_go_with_the_channels_that_they_hold() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 4, 1),
    )  # fmt: skip
    net.eval()
    fresh, x = copy.deepcopy(net), draws(2, 3, 8, 8)
    (group,) = prunable(net, x)
    assert group.masked == ("1", "4") or group.masked == ("4", "1")
    remove(net, x, [group], [[1, 4]])
    reshape(fresh, net.state_dict())
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(x), net(x))


def test_counting_an_unpruned_edge_again_changes_nothing() -> None:
    split = split_of("resnet20", "layer2")
    assert recounted(split).cut == split.cut


def test_the_smallest_masks_go_until_the_budget_is_met() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    x = draws(1, 1, 1, 1)
    groups = prunable(net, x)
    assert groups == (Group("0", 4, ("0",), (("0", 1),), (("2", 1),)),)
    costs, level = Costs(net, x, groups, 12), [torch.zeros(4)]
    assert costs.of([3]) == (9 / 12, 9 / 12)

    def gone(mask: list[float], **kept: float) -> list[list[int]]:
        shares = {"macs": 1.0, "parameters": 1.0, **kept}
        return costs.choose([torch.tensor(mask)], level, macs=shares["macs"], parameters=shares["parameters"], least=1)

    assert gone([0.5, -0.1, 0.9, 0.3]) == [[]]
    assert gone([0.5, -0.1, 0.9, 0.3], macs=0.5) == [[1, 3]]
    assert gone([0.5, -0.1, 0.9, 0.3], parameters=0.75) == [[1]]
    assert gone([0.5, 0.0, 0.9, 0.0], macs=0.75) == [[1, 3]]  # all zeros go, though one would have been enough
    assert gone([0.0, 0.0, 0.0, 0.0]) == [[0, 1, 2]]  # the least stays
    by_rank = costs.choose([torch.ones(4)], [torch.tensor([3, 0, 1, 2]) / 3], macs=0.5, parameters=1.0, least=1)
    assert by_rank == [[1, 2]]
    with pytest.raises(InputError, match=r"0\.250 of the MACs.*budget=0\.26"):
        gone([1.0, 1.0, 1.0, 1.0], macs=0.2)


def test_ranks_follow_the_weights() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.ReLU(), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        net.get_parameter("0.weight").copy_(torch.tensor([0.5, -2.0, 1.0]).reshape(3, 1, 1, 1))
    (ranks,) = weight_ranks(net, [Group("0", 3, ("0",), (), ())])
    assert ranks.tolist() == [0.0, 1.0, 0.5]
