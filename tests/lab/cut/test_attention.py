"""Nets of torch.nn's own transformers are cut after every layer; halves equal the plain operations bit for bit."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.cut import Split, trace
from splitveil.lab.cut.attention import PlainAttention
from splitveil.lab.cut.capture import no_fast_path

from .nets import lively

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
SHAPE = (3, 8, 8)
EXAMPLE = torch.rand(1, *SHAPE)
WIDTH, TOKENS = 16, 16


class Tokens(nn.Module):
    """Patches, a body of torch's own blocks, mean, head. `call` says how the body is called."""

    mask: Tensor

    def __init__(self, body: nn.Module, *, batch_first: bool = True, call: str = "plain") -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, 2, 2)
        self.body, self.batch_first, self.call = body, batch_first, call
        self.register_buffer("mask", torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1))
        self.query = nn.Parameter(torch.randn(1, 3, WIDTH))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x).flatten(2)
        z = z.transpose(1, 2) if self.batch_first else z.permute(2, 0, 1)
        z = self._body(z)
        logits: Tensor = self.head(z.mean(1 if self.batch_first else 0))
        return logits

    def _body(self, z: Tensor) -> Any:
        match self.call:
            case "boolean mask":
                return self.body(z, self.mask)
            case "causal":
                return self.body(z, mask=nn.Transformer.generate_square_subsequent_mask(TOKENS), is_causal=True)
            case "window":
                return self.body(z, mask=self.mask & self.mask.roll(1, 0))
            case "queries":
                query = self.query if self.batch_first else self.query.transpose(0, 1)
                shape = (z.shape[0], -1, -1) if self.batch_first else (-1, z.shape[1], -1)
                return self.body(z, query.expand(shape))
            case "memory":
                return self.body(self.query.expand(z.shape[0], -1, -1), z)
            case "attention":
                return z + self.body(z, z, z, need_weights=False)[0]
            case "weights":
                found, weights = self.body(z, z, z)
                return z + found * weights.mean(2, keepdim=True)
            case "recurrent":
                return self.body(z)[0]
            case _:
                return self.body(z)


def encoder(depth: int = 3, *, norm: bool = False, nested: bool = False, **options: Any) -> nn.TransformerEncoder:
    options = {"batch_first": True, **options}
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 32, **options)
    return nn.TransformerEncoder(layer, depth, nn.LayerNorm(WIDTH) if norm else None, enable_nested_tensor=nested)


def check(model: nn.Module, halves: Split) -> None:
    """Fast path off: the same bits. On, for model or halves: within rounding."""
    for n in (1, 3, 5):
        x = torch.rand(n, *SHAPE)
        with torch.no_grad():
            found = halves(x)
            with no_fast_path():
                assert torch.equal(model(x), halves(x))
                assert torch.equal(model(x), found)
            assert (model(x) - found).abs().max() < 1e-6 * max(1.0, float(found.abs().max()))
            assert halves.edge(x).shape == (n, *halves.cut.shape)


@pytest.mark.parametrize("norm_first", [False, True], ids=["post", "pre"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["sequence first", "batch first"])
def test_a_cut_after_every_encoder_layer(norm_first: bool, batch_first: bool) -> None:
    body = encoder(batch_first=batch_first, norm_first=norm_first, norm=norm_first)
    model = lively(Tokens(body, batch_first=batch_first), SHAPE)
    traced = trace(model, EXAMPLE)
    names = [c.name for c in traced.cuts()]
    inner = "layers.{}.dropout1+add" if norm_first else "layers.{}.norm1"
    ends = ["body.layers.0", "body.layers.1", "body.layers.2" if norm_first else "body"]
    assert [n for n in names if n in ends] == ends
    assert {f"body.{inner.format(i)}" for i in range(3)} <= set(names)
    assert traced.tracer == "fx"
    for cut in traced.cuts():
        assert cut.name == "embed" or cut.shape[-1] == WIDTH
        check(model, traced.split(cut.name))
    middle = next(c for c in traced.cuts() if c.name == "body.layers.0")
    assert middle.shape == (TOKENS, WIDTH)
    assert 0.2 < middle.edge_share < 0.5


@pytest.mark.parametrize(
    ("body", "call"),
    [
        (lambda: encoder(activation="gelu", nested=True), "plain"),
        (lambda: encoder(), "boolean mask"),
        (lambda: encoder(), "causal"),
        (lambda: encoder(norm_first=True), "window"),
        (lambda: encoder(bias=False), "plain"),
    ],
    ids=["gelu, nested", "boolean mask", "causal", "window", "no bias"],
)
def test_kinds_of_encoders(body: Any, call: str) -> None:
    model = lively(Tokens(body(), call=call), SHAPE)
    traced = trace(model, EXAMPLE)
    assert traced.tracer == "fx"
    for name in ("body.layers.0", "body.layers.1"):
        check(model, traced.split(name))


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoders_and_whole_transformers(norm_first: bool) -> None:
    options = {"batch_first": True, "norm_first": norm_first}
    layer = nn.TransformerDecoderLayer(WIDTH, 4, 32, batch_first=True, norm_first=norm_first)
    decoder = lively(Tokens(nn.TransformerDecoder(layer, 2, nn.LayerNorm(WIDTH)), call="memory"), SHAPE)
    whole = nn.Transformer(WIDTH, 4, 2, 2, 32, **options)  # type: ignore[arg-type]
    both = lively(Tokens(whole, call="queries"), SHAPE)
    for model, name in ((decoder, "body.layers.1"), (both, "body.encoder"), (both, "body.encoder.layers.0")):
        traced = trace(model, EXAMPLE)
        assert traced.tracer == "fx"
        check(model, traced.split(name))


def test_a_transformer_with_the_sequence_first() -> None:
    model = lively(Tokens(nn.Transformer(WIDTH, 4, 2, 1, 32), batch_first=False, call="queries"), SHAPE)
    traced = trace(model, EXAMPLE)
    halves = traced.split("body.encoder.layers.0")
    assert halves.cut.shape == (TOKENS, WIDTH)
    check(model, halves)


@pytest.mark.parametrize("call", ["attention", "weights"])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"add_bias_kv": True}, {"kdim": WIDTH, "vdim": WIDTH}], ids=str
)
def test_attention_alone(call: str, options: dict[str, Any]) -> None:
    body = nn.MultiheadAttention(WIDTH, 4, batch_first=True, **options)
    model = lively(Tokens(body, call=call), SHAPE)
    traced = trace(model, EXAMPLE)
    assert traced.cuts()[-1].name.startswith("body+")
    for cut in traced.cuts():
        check(model, traced.split(cut.name))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_stay_whole(kind: Any) -> None:
    model = lively(Tokens(kind(WIDTH, WIDTH, 2, batch_first=True), call="recurrent"), SHAPE)
    traced = trace(model, EXAMPLE)
    assert [c.name for c in traced.cuts()] == ["embed", "body+getitem", "body+getitem+mean"]
    for cut in traced.cuts():
        check(model, traced.split(cut.name))


def test_a_layer_of_ones_own_is_followed() -> None:
    class Own(nn.TransformerEncoderLayer):
        def forward(self, src: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            out: Tensor = super().forward(src, *args, **kwargs) * 0.5
            return out

    body = nn.TransformerEncoder(Own(WIDTH, 4, 32, batch_first=True), 2, enable_nested_tensor=False)
    model = lively(Tokens(body), SHAPE)
    check(model, trace(model, EXAMPLE).split("body.layers.0"))


def test_halves_of_an_encoder_train_with_dropout() -> None:
    model = lively(Tokens(encoder(dropout=0.5)), SHAPE)
    halves = trace(model, EXAMPLE).split("body.layers.0")
    x = torch.rand(4, *SHAPE)
    halves.train()
    assert not torch.equal(halves(x), halves(x))
    halves(x).sum().backward()
    assert all(p.grad is not None for p in halves.parameters())
    keys = halves.edge.state_dict().keys() | halves.cloud.state_dict().keys()
    assert keys == model.state_dict().keys() - {"mask", "query"}
    attention = copy.deepcopy(halves).edge.get_submodule("body.layers.0.self_attn")
    assert isinstance(attention, PlainAttention)


def test_the_model_keeps_its_own_attention() -> None:
    model = Tokens(encoder())
    trace(model, EXAMPLE)
    assert not any(isinstance(m, PlainAttention) for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()
