"""What a model is probed for before it is cut: each kind with its members, and nets that must raise no alarm."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import CutError, InputError
from splitveil.lab.cut import cuts, halves, split, tap, trace

EXAMPLE = torch.zeros(1, 3, 8, 8)
How = Callable[[Any, Any, Any], Any]


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


class Net(nn.Module):
    """Two convolutions with something of the test's between them."""

    kept: Any
    calls: Any

    def __init__(self, how: How) -> None:
        super().__init__()
        self.c1, self.r1, self.c2, self.fc = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 1),
            nn.Linear(8, 5),
        )
        self.how, self.kept, self.n = how, None, 0
        self.bn, self.drop = nn.BatchNorm2d(8, track_running_stats=False), nn.Dropout(0.5)
        self.attention = nn.MultiheadAttention(8, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        z = self.how(self, self.r1(self.c1(x)), x)
        out: Tensor = self.fc(self.c2(z).mean((2, 3)))
        return out


def attended(net: Any, z: Any, x: Any) -> Any:
    t = z.flatten(2).transpose(1, 2)
    return z + net.attention(t, t, t)[0].transpose(1, 2).reshape(z.shape)


COUPLED: dict[str, tuple[How, str]] = {
    "mean": (lambda net, z, x: z - z.mean(0), "'mean' after 'r1'"),
    "slight": (lambda net, z, x: z - 1e-3 * z.mean(0), "'mean' after 'r1'"),
    "batch statistics": (lambda net, z, x: net.bn(z), r"'bn' \(BatchNorm2d\)"),
    "softmax": (lambda net, z, x: z.softmax(0), "'softmax'"),
    "cumsum": (lambda net, z, x: z.cumsum(0), "'cumsum'"),
    "backwards": (lambda net, z, x: z.flip(0).cumsum(0).flip(0), "'cumsum'"),
    "sorted": (lambda net, z, x: z.sort(0)[0], "'sort'"),
    "attention": (attended, r"'attention' \(MultiheadAttention\)"),
    "largest": (lambda net, z, x: z / x.max(), "'max'"),
    "smallest": (lambda net, z, x: z - x.min(), "'min'"),
    "spread": (lambda net, z, x: z / x.std(), "'std'"),
    "normalised": (lambda net, z, x: F.normalize(z, dim=0), "'normalize'"),
    "batch size": (lambda net, z, x: z / len(z), "'div'"),
    "similarity": (lambda net, z, x: z + (z.flatten(1) @ z.flatten(1).T).mean(1)[:, None, None, None], "'matmul'"),
    "place": (lambda net, z, x: z * (1 + torch.arange(len(z)))[:, None, None, None], "'arange'"),
}


@pytest.mark.parametrize("kind", COUPLED)
def test_answer_that_depends_on_the_batch_is_refused_with_the_step(kind: str) -> None:
    how, step = COUPLED[kind]
    with pytest.raises(CutError, match=rf"depends on the other images of the batch.*, first at {step}"):
        cuts(Net(how), EXAMPLE)


def test_a_batch_that_comes_back_in_another_order_is_refused() -> None:
    for how in (lambda net, z, x: z.roll(1, 0), lambda net, z, x: z.flip(0)):
        with pytest.raises(CutError, match="depends on the other images of the batch"):
            cuts(Net(how), EXAMPLE)


def test_features_that_depend_on_the_batch_are_refused_where_the_answer_does_not() -> None:
    net = Net(lambda net, z, x: F.layer_norm(z / x.std(), z.shape[1:], eps=1e-12))
    with pytest.raises(CutError, match=r"its features at 'r1\+std\+truediv' depend on the other images"):
        cuts(net, EXAMPLE)


def remembering(net: Any, z: Any, x: Any) -> Any:
    net.kept = z.mean() if net.kept is None else net.kept
    return z * net.kept


def grown(net: Any, z: Any, x: Any) -> Any:
    net.n += 1
    return z * net.n


def counted(net: Any, z: Any, x: Any) -> Any:
    net.calls += 1
    return z * net.calls


@pytest.mark.parametrize(
    ("how", "says"), [(remembering, "a state"), (grown, "a state .* at 'mul'"), (counted, "the state 'calls', first")]
)
def test_answer_that_depends_on_earlier_calls_is_refused(how: How, says: str) -> None:
    with pytest.raises(CutError, match=f"changes from call to call, .*{says}"):
        cuts(Net(how), EXAMPLE)


def in_place(net: Any, z: Any, x: Any) -> Any:
    net.calls.add_(1)
    net.n += 1
    return z


def anew(net: Any, z: Any, x: Any) -> Any:
    net.calls = net.calls + 1
    return z


def operator(net: Any, z: Any, x: Any) -> Any:
    net.calls += 1
    return z


def table(net: Any, z: Any, x: Any) -> Any:
    net.kept = torch.linspace(0, 1, z.shape[-1]) * net.fc.bias.mean() if net.kept is None else net.kept
    return z + net.kept.mean()


@pytest.mark.parametrize("how", [in_place, anew, operator])
def test_counters_are_cut_and_the_model_counts_no_call(how: How) -> None:
    net = Net(how).eval()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    traced = trace(net, EXAMPLE)
    made = [traced.split(c.name) for c in traced.cuts()]
    assert traced.tracer == "fx"
    assert net.n == 0
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    x = torch.rand(3, 3, 8, 8)
    assert all(torch.equal(m(x), net(x)) for m in made)
    assert not any(t.any() for m in made for name, t in m.named_buffers() if "calls" in name)


def test_a_table_kept_from_an_earlier_call_is_copied() -> None:
    net = Net(table).eval()
    net(EXAMPLE)
    assert net.kept is not None
    assert net.kept.requires_grad
    assert cuts(net, EXAMPLE)


def forced(net: Any, z: Any, x: Any) -> Any:
    return net.drop.train()(z)


RANDOM: dict[str, tuple[How, str]] = {
    "function": (lambda net, z, x: F.dropout(z, 0.5), "'dropout' after 'r1'"),
    "rare": (lambda net, z, x: F.dropout2d(z, 0.05), "'dropout2d'"),
    "noise": (lambda net, z, x: z + torch.randn_like(z), "'randn_like'"),
    "mask": (lambda net, z, x: z * torch.rand(8, 1, 1), "'rand'"),
    "switched on": (forced, r"'drop' \(Dropout\)"),
    "slope": (lambda net, z, x: F.rrelu(z - 0.3, training=True), "'rrelu'"),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_random_model_is_cut_and_its_halves_draw_as_it_does(kind: str) -> None:
    how, step = RANDOM[kind]
    net, state = Net(how), torch.get_rng_state()
    traced = trace(net, EXAMPLE)
    assert torch.equal(state, torch.get_rng_state())
    assert f"random in eval mode, first at {step}".replace("\\", "") in traced.random
    name = traced.cuts()[-1].name
    made = traced.split(name).eval()
    x = torch.rand(64, 3, 8, 8)
    assert not torch.equal(made.edge(x), made.edge(x))


@pytest.mark.parametrize(
    ("how", "by"),
    [(lambda net, z, x: z * np.random.rand(), "NumPy"), (lambda net, z, x: z * random.random(), "Python")],
)
def test_numbers_that_no_graph_draws_are_named(how: How, by: str) -> None:
    with pytest.raises(CutError, match=rf"the model is random in eval mode \(by {by}\), first at 'mul' .* halves"):
        cuts(Net(how), EXAMPLE)


def masked(net: Any, z: Any, x: Any) -> Any:
    t = z.flatten(2)
    mask = torch.ones(8, 8).triu(1).bool()
    return ((t @ t.transpose(1, 2)).masked_fill(mask, -torch.inf).softmax(-1) @ t).reshape(z.shape)


NOT_FINITE: dict[str, tuple[How, str]] = {
    "root": (lambda net, z, x: (z - 1).sqrt(), "on random images, first at 'sqrt' after 'r1'"),
    "logarithm": (lambda net, z, x: (z - 1).log(), "on random images, first at 'log'"),
    "infinity": (lambda net, z, x: z * 1e38 * 1e38, "on random images, first at 'mul'"),
    "overflow": (lambda net, z, x: (z * 1000).exp(), "on random images, first at 'exp'"),
    "behind a mask": (lambda net, z, x: (masked(net, z, x) - 9).log(), "on random images, first at 'log'"),
    "even images": (lambda net, z, x: z / x.std((1, 2, 3), keepdim=True), "on a black image, first at 'div'"),
    "dark images": (lambda net, z, x: z * (x.mean((1, 2, 3), True) - 0.3).sqrt(), "on a black image, first at 'sqrt'"),
    "light images": (lambda net, z, x: z * (0.7 - x.mean((1, 2, 3))).sqrt()[:, None, None, None], "on a white image"),
}


@pytest.mark.parametrize("kind", NOT_FINITE)
def test_answer_that_is_not_finite_is_refused_with_the_step(kind: str) -> None:
    how, says = NOT_FINITE[kind]
    with pytest.raises(CutError, match=f"not finite {says}.*; guard that step"):
        cuts(Net(how), EXAMPLE)


def test_weights_that_are_not_finite_are_named() -> None:
    net = Net(lambda net, z, x: z)
    net.c1.weight.data[0] = torch.nan
    with pytest.raises(CutError, match=r"not finite, for its weights 'c1.weight' hold NaN"):
        cuts(net, EXAMPLE)


def test_masks_that_hold_infinity_are_fine() -> None:
    assert cuts(Net(masked), EXAMPLE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_computed_in_32_bits(dtype: torch.dtype) -> None:
    net = Net(lambda net, z, x: z).to(dtype)
    made = split(net, "r1", EXAMPLE)
    assert {p.dtype for p in made.parameters()} == {torch.float32}
    assert {p.dtype for p in net.parameters()} == {dtype}


def test_a_double_example_keeps_double_weights() -> None:
    net = Net(lambda net, z, x: z).double().eval()
    made, x = split(net, "r1", EXAMPLE.double()), torch.rand(2, 3, 8, 8).double()
    assert torch.equal(made(x), net(x))


def test_halves_by_hand_are_probed_too() -> None:
    for kinds, says in ((COUPLED, "depends on the other images"), (NOT_FINITE, "not finite")):
        how, _ = next(iter(kinds.values()))
        with pytest.raises(CutError, match=f"cannot use the edge half: .*{says}"):
            halves(Net(how), nn.Linear(5, 2), EXAMPLE)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(CutError, match=r"cannot use the cloud half: .*'cumsum'"):
        halves(net, Last(), EXAMPLE)


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(144, 2)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.fc(z.cumsum(0))
        return out


def test_halves_by_hand_may_be_random_and_count() -> None:
    made = halves(Net(lambda net, z, x: F.dropout(operator(net, z, x))), nn.Linear(5, 2), EXAMPLE)
    assert not any(t.any() for t in made.edge.buffers())


class Asks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def head(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.c(x).mean((2, 3)))
        return out


class TwoInputs(Asks):
    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        return self.head(x * meta)


class KeywordBeside(Asks):
    def forward(self, x: Tensor, *, meta: Tensor) -> Tensor:
        return self.head(x * meta)


class KeywordOnly(Asks):
    def forward(self, *, pixels: Tensor) -> Tensor:
        return self.head(pixels)


class Whole(Asks):
    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.int64
        return self.head(x.float())


class ChannelsLast(Asks):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.permute(0, 3, 1, 2))


class Sized(Asks):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == 32, "wants 32"
        return self.head(x)


@pytest.mark.parametrize(
    ("model", "example", "says"),
    [
        (TwoInputs(), EXAMPLE, r"it takes 2 inputs \('x', 'meta'\)"),
        (KeywordBeside(), EXAMPLE, r"it takes 2 inputs \('x', 'meta'\)"),
        (KeywordOnly(), EXAMPLE, "it takes its input by the keyword 'pixels'"),
        (Whole(), EXAMPLE, "it takes int64 where images are float32"),
        (ChannelsLast(), torch.zeros(1, 3, 5, 8), "it takes images as .*channels last"),
        (Sized(), EXAMPLE, r"AssertionError: wants 32; it takes images of 32x32 pixels, not 8x8; add \?size=32"),
        (Sized(), torch.zeros(1, 1, 8, 8), r"3 channels, not 1 and 32x32 pixels, .*channels=3&size=32"),
    ],
)
def test_input_that_does_not_fit_names_its_cause(model: nn.Module, example: Tensor, says: str) -> None:
    with pytest.raises(CutError, match=says):
        cuts(model, example)


def test_what_cannot_be_copied_is_named() -> None:
    net = Net(lambda net, z, x: z)
    net.kept = (n for n in range(3))
    with pytest.raises(InputError, match=r"the model cannot be copied .*generator"):
        cuts(net, EXAMPLE)


@pytest.mark.parametrize("call", [trace, cuts, lambda m, x: split(m, "r1", x), lambda m, x: tap(m, ["r1"], x)])
def test_arguments_of_another_kind_get_a_sentence(call: Callable[[object, object], object]) -> None:
    net = Net(lambda net, z, x: z)
    with pytest.raises(InputError, match=r"expected example as Tensor, got ndarray; torch.from_numpy\(...\) makes one"):
        call(net, np.zeros((1, 3, 8, 8)))
    with pytest.raises(InputError, match=r"expected model as Module, got str 'resnet20'; load_model\(...\).model is"):
        call("resnet20", EXAMPLE)
    with pytest.raises(InputError, match=r"expected model as Module, got the class Net; make one: Net\(...\)"):
        call(Net, EXAMPLE)
    with pytest.raises(InputError, match="expected model as Module, got None"):
        call(None, EXAMPLE)


def strict(net: Any, z: Any, x: Any) -> Any:
    torch._assert(bool(((x >= 0) & (x <= 1)).all()), "images lie in [0, 1]")
    return z


def looked_up(net: Any, z: Any, x: Any) -> Any:
    return z + net.table[(x * 255).round().long()].mean(1, keepdim=True)


def strict_and_coupled(net: Any, z: Any, x: Any) -> Any:
    return strict(net, z, x) - z.mean(0, keepdim=True)


def no_black(net: Any, z: Any, x: Any) -> Any:
    if bool((x.flatten(1).sum(1) == 0).any()):
        raise RuntimeError("an empty picture")
    return z


def test_a_model_that_takes_images_in_their_range_alone_is_probed_in_it() -> None:
    net = Net(looked_up)
    net.register_buffer("table", torch.linspace(0, 1, 256))
    assert cuts(net, EXAMPLE)
    with pytest.raises(CutError, match="depends on the other images of the batch, first at 'mean'"):
        cuts(Net(strict_and_coupled), EXAMPLE)
    with pytest.raises(CutError, match="what it computes depends on the values in the image"):
        cuts(Net(strict), EXAMPLE)


def test_a_model_that_fails_on_some_images_is_refused_in_a_sentence() -> None:
    with pytest.raises(CutError, match=r"fails on black, white or single images \(RuntimeError: an empty picture\)"):
        cuts(Net(no_black), EXAMPLE)
