import copy

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import CutError
from splitveil.lab.cut import Split, cuts, split, tap, trace
from splitveil.lab.cut.pieces import Piece
from splitveil.lab.models.resnet import resnet20

from .nets import Branching, Folded, LateInput, Overwriting, Plain, Shared, SquaredBatch, lively

SHAPE = (3, 8, 8)
EXAMPLE = torch.rand(1, *SHAPE)


@pytest.fixture(scope="module")
def residual() -> nn.Module:
    return lively(resnet20((3, 16, 16)), (3, 16, 16))


def exact(model: nn.Module, halves: Split, shape: tuple[int, ...] = SHAPE) -> bool:
    """At batch sizes that tracing saw and at one that it did not."""
    with torch.no_grad():
        return all(torch.equal(halves(x), model(x)) for x in (torch.rand(n, *shape) for n in (1, 3, 5)))


def test_names_are_the_outermost_modules_that_end_there(residual: nn.Module) -> None:
    found = {c.name: c for c in cuts(residual, torch.rand(1, 3, 16, 16))}
    assert list(found)[:5] == ["conv1", "bn1", "bn1+relu", "layer1.0.bn2+add", "layer1.0"]
    assert list(found)[-1] == "layer3+mean"
    assert found["layer1"].also == ("layer1.2",)
    assert found["layer2"].shape == (32, 8, 8)
    assert [c.index for c in found.values()] == list(range(len(found)))


def test_every_cut_is_exact_and_divides_the_weights(residual: nn.Module) -> None:
    traced, whole = trace(residual, torch.rand(4, 3, 16, 16)), residual.state_dict()
    for cut in traced.cuts():
        halves = traced.split(cut.name)
        edge, cloud = halves.edge.state_dict(), halves.cloud.state_dict()
        assert exact(residual, halves, (3, 16, 16))
        assert edge.keys().isdisjoint(cloud)
        assert edge.keys() | cloud.keys() == whole.keys()
        assert all(torch.equal(whole[k], v) for k, v in (edge | cloud).items())
        assert cut.edge_params == sum(p.numel() for p in halves.edge.parameters())
        assert cut.cloud_params == sum(p.numel() for p in halves.cloud.parameters())
        assert halves.cut == cut


def test_inner_modules_and_modules_that_hand_on_are_accepted(residual: nn.Module) -> None:
    traced = trace(residual, torch.rand(1, 3, 16, 16))
    assert traced.split("layer1.2").cut.name == "layer1"
    assert traced.split("layer1.0.shortcut").cut.name == "bn1+relu"


def test_cut_inside_a_residual_block_says_what_else_would_cross(residual: nn.Module) -> None:
    with pytest.raises(CutError) as error:
        split(residual, "layer1.0.conv1", torch.rand(1, 3, 16, 16))
    assert str(error.value) == (
        "cannot cut at 'layer1.0.conv1': 'bn1+relu' would cross as well; "
        "cut at the nearest legal place, 'bn1+relu' before or 'layer1.0.bn2+add' after."
    )


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("layr1", r"'layr1' is not in this model. Did you mean 'layer1'\? Legal cuts: conv1, bn1, .* and 2 more[.]"),
        ("layer1.0.nothing", "'layer1.0.nothing' is not in this model"),
        ("normalize", "the input itself would cross, only rearranged or rescaled; cut at .* 'conv1' after"),
        ("linear", "nothing would be left to compute behind it; cut at .* 'layer3[+]mean' before"),
    ],
)
def test_other_refusals(residual: nn.Module, at: str, says: str) -> None:
    with pytest.raises(CutError, match=says):
        split(residual, at, torch.rand(1, 3, 16, 16))


def test_no_ops_and_rearrangements_make_one_cut() -> None:
    found = {c.name: c for c in cuts(Plain(), EXAMPLE)}
    assert list(found) == ["conv", "bn", "relu", "twice.0", "relu#2", "twice.1", "relu#3", "pool"]
    assert found["relu"].also == ("same",)
    assert found["pool"].also == ("flat", "drop")
    assert found["pool"].shape == (4, 2, 2)


def test_module_called_piece_by_piece_is_no_cut() -> None:
    with pytest.raises(CutError, match="'twice' is no single step of this model"):
        split(Plain(), "twice", EXAMPLE)


def test_unused_weights_are_dropped_and_the_model_is_left_alone() -> None:
    model = Plain().train()
    halves = split(model, "twice.0", EXAMPLE)
    kept = halves.edge.state_dict().keys() | halves.cloud.state_dict().keys()
    assert model.state_dict().keys() - kept == {"spare.weight", "spare.bias"}
    assert model.training
    assert not halves.training
    assert model.relu.inplace
    mine = {p.data_ptr() for p in halves.parameters()}
    assert mine.isdisjoint(p.data_ptr() for p in model.parameters())


def test_constants_that_the_model_does_not_save_stay_unsaved(residual: nn.Module) -> None:
    halves = split(residual, "layer1", torch.rand(1, 3, 16, 16))
    for edge in (halves.edge, copy.deepcopy(halves).edge):
        assert isinstance(edge, Piece)
        assert "normalize.mean" in dict(edge.named_buffers())
        assert "normalize.mean" not in edge.state_dict()


def test_halves_train_as_the_model_does(residual: nn.Module) -> None:
    model, x = copy.deepcopy(residual).train(), torch.rand(4, 3, 16, 16)
    halves = split(residual, "layer2", x).train()
    before = copy.deepcopy(halves.state_dict())
    out = halves(x)
    assert torch.equal(out, model(x))
    out.sum().backward()
    assert all(p.grad is not None for p in halves.parameters())
    after = halves.edge.state_dict() | halves.cloud.state_dict()
    assert all(torch.equal(after[k], v) for k, v in model.state_dict().items())
    assert not torch.equal(before["edge.bn1.running_mean"], after["bn1.running_mean"])


def test_tap_yields_what_the_edge_halves_yield_in_one_pass(residual: nn.Module) -> None:
    traced = trace(residual, torch.rand(1, 3, 16, 16))
    names = ["layer3", "conv1", "layer1.2", "layer2.0.shortcut+add"]
    tapped = traced.tap(names)
    calls: list[int] = []
    tapped.get_submodule("conv1").register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        out, features = tapped(x)
        assert torch.equal(out, residual(x))
        assert isinstance(features, tuple)
        assert all(torch.equal(z, traced.split(n).edge(x)) for n, z in zip(names, features, strict=True))
    assert calls == [1]


@pytest.mark.parametrize("how", ["module", "function", "underscore", "method", "operator", "view"])
def test_features_are_never_overwritten(how: str) -> None:
    model = Overwriting(how).eval()
    traced = trace(model, EXAMPLE)
    assert traced.tracer == ("functional export" if how == "view" else "fx")
    names = [c.name for c in traced.cuts()]
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        _, features = tap(model, names, EXAMPLE)(x)
        for name, z in zip(names, features, strict=True):
            halves = traced.split(name)
            assert exact(model, halves)
            assert torch.equal(z, halves.edge(x))
    assert torch.equal(features[0], model.conv(x))


def test_input_that_is_needed_late_never_crosses() -> None:
    model = LateInput(whole=True)
    assert [c.name for c in cuts(model, EXAMPLE)] == ["conv+add"]
    with pytest.raises(
        CutError, match=r"cannot cut at 'conv': the input itself would cross as well; cut at .* 'conv\+add'"
    ):
        split(model, "conv", EXAMPLE)


def test_sizes_never_cross_and_follow_the_batch() -> None:
    model = LateInput(whole=False).eval()
    halves = split(model, "conv", EXAMPLE)
    assert isinstance(halves.cloud, Piece)
    assert sum(n.op == "placeholder" for n in halves.cloud.graph.nodes) == 1
    assert exact(model, halves)


def test_folded_batch_is_no_cut_and_is_unfolded_behind_one() -> None:
    model = Folded().eval()
    traced = trace(model, EXAMPLE)
    assert {"conv", "outer"} <= {c.name for c in traced.cuts()}
    with pytest.raises(CutError, match="'inner': what would cross has something else than the batch as its first axis"):
        traced.split("inner")
    for cut in traced.cuts():
        assert exact(model, traced.split(cut.name))


@pytest.mark.parametrize("tied", [False, True])
def test_halves_never_share_a_weight(tied: bool) -> None:
    model = Shared(tied=tied)
    with pytest.raises(CutError, match=r"'first': both halves would need the weights '(first|second)\.\w+'"):
        split(model, "first", EXAMPLE)
    last = cuts(model, EXAMPLE)[-1]
    assert last.edge_params == sum(p.numel() for p in model.parameters()) - 8
    assert exact(model.eval(), split(model, last.name, EXAMPLE))


def test_export_takes_over_where_fx_cannot_follow() -> None:
    model = lively(Branching(values=False), SHAPE)
    traced = trace(model, EXAMPLE)
    assert traced.tracer == "export"
    assert traced.why.startswith("fx: ")
    assert [c.name for c in traced.cuts()] == ["stem.0", "stem.1", "stem", "body.0", "body", "body+mean"]
    for cut in traced.cuts():
        halves = traced.split(cut.name)
        assert exact(model, halves)
        kept = halves.edge.state_dict().keys() | halves.cloud.state_dict().keys()
        assert model.state_dict().keys() - kept == {"stem.1.num_batches_tracked"}


def test_untraceable_model_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        CutError, match=r"cannot trace the model \(fx: .*; export: .*\); write both halves by hand .* halves"
    ):
        cuts(Branching(values=True), EXAMPLE)


def test_weights_that_start_at_zero_hide_nothing_and_come_back() -> None:
    with pytest.raises(
        CutError, match=r"depends on the other images of the batch, on their number .* at 'div' after 'conv'"
    ):
        cuts(SquaredBatch(), EXAMPLE)
    model = Plain()
    nn.init.zeros_(model.head.weight)
    halves = split(model, "pool", EXAMPLE)
    assert not halves.cloud.get_parameter("head.weight").any()


@pytest.mark.parametrize("example", [torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(3)])
def test_example_must_be_a_float_batch(example: Tensor) -> None:
    with pytest.raises(CutError, match="expected an example of shape"):
        cuts(Plain(), example)


def test_example_must_fit_the_model() -> None:
    with pytest.raises(
        CutError,
        match=r"the model does not run on images of shape \(1, 8, 8\): .*; it takes images of 3 channels, not 1; add",
    ):
        cuts(Plain(), torch.rand(1, 1, 8, 8))


def test_model_must_return_one_tensor() -> None:
    class Two(Plain):
        def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
            return super().forward(x), x  # type: ignore[return-value]

    with pytest.raises(CutError, match="returns one tensor, got tuple"):
        cuts(Two(), EXAMPLE)


def test_one_module_is_a_model_without_cuts() -> None:
    assert cuts(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), EXAMPLE) == []
