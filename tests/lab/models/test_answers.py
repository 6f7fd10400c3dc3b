"""Models that answer with more than their logits, and the other things that a file may hold or a model may want."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import split, trace
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.export import save
from splitveil.lab.models.loader import Loaded, load_model
from splitveil.lab.probing import chosen, described
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import Bundle
from splitveil.wire.codecs import CODECS

OTHER = """
from torch import nn

class Rounds(nn.Module):
    def __init__(self, shape=(3, 8, 8), classes=5):
        super().__init__()
        self.c = nn.Conv2d(shape[0], classes, 3)

    def forward(self, x):
        return self.c(x).mean((2, 3)).long()

class Yields(Rounds):
    def forward(self, x):
        yield self.c(x).mean((2, 3))
"""

FILE = """
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
import torch
from torch import nn

Pair = namedtuple("Pair", "features logits")

@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor

class Net(nn.Module):
    def __init__(self, shape=(3, 8, 8), classes=5):
        super().__init__()
        self.c, self.fc = nn.Conv2d(shape[0], 4, 3), nn.Linear(4, classes)

    def pair(self, x):
        h = self.c(x).relu()
        return self.fc(h.mean((2, 3))), h

    def forward(self, x):
        return self.pair(x)[0]

def answering(how):
    class Answering(Net):
        def forward(self, x):
            return how(*self.pair(x))
    return Answering

Dict = answering(lambda y, h: {"features": h, "logits": y})
Nested = answering(lambda y, h: {"out": {"logits": y, "h": h}})
Tuple = answering(lambda y, h: (h, y))
List = answering(lambda y, h: [h, y])
Named = answering(lambda y, h: Pair(h, y))
Ordered = answering(lambda y, h: OrderedDict(features=h, logits=y))
Record = answering(lambda y, h: Output(y, h))

def half(shape, classes):
    return Net(shape, classes).half()

made = Net()

class Wants(Net):
    def __init__(self, width, shape=(3, 8, 8), *, depth):
        super().__init__(shape)

def meta(shape):
    class Two(Net):
        def forward(self, x, meta):
            return super().forward(x * meta)
    return Two(shape)

words = {"state_dict": 1}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(FILE)
    return tmp_path / "net.py"


def load(spec: str, logits: str | int | None = None, shape: tuple[int, int, int] = (3, 8, 8)) -> Loaded:
    return load_model(spec, shape=shape, classes=5, weights=None, logits=logits)


CHOICES: list[tuple[str, str | int]] = [
    ("Dict", "logits"), ("Dict", 1), ("Dict", "1"), ("Nested", "out.logits"), ("Tuple", 1), ("Tuple", "-1"),
    ("List", "1"), ("Named", "logits"), ("Named", 1), ("Ordered", "logits"), ("Record", "logits"), ("Record", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "key"), CHOICES)
def test_a_key_a_field_or_a_place_picks_the_logits(file: Path, name: str, key: str | int) -> None:
    loaded = load(f"{file}:{name}", key)
    plain, x = load(f"{file}:Net").model, torch.rand(3, 3, 8, 8)
    assert torch.equal(loaded.model(x), plain(x))
    assert loaded.model.state_dict().keys() == plain.state_dict().keys()
    traced = trace(loaded.model, x)
    assert traced.tracer == "fx"
    assert torch.equal(traced.split("c")(x), plain(x))
    again = load(loaded.name)
    assert torch.equal(again.model(x), plain(x))


def test_trace_takes_the_choice_too(file: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.c(x)
            return z, self.fc(z.mean((2, 3)))

    net, x = Two(), torch.rand(2, 3, 8, 8)
    assert torch.equal(split(net, "c", x, logits=1)(x), net(x)[1])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Dict", r"got dict with 'features' \(2, 4, 6, 6\) and 'logits' \(2, 5\); say which part"),
        ("Tuple", r"got tuple with '0' \(2, 4, 6, 6\) and '1' \(2, 5\); .*--logits KEY"),
        ("Named", r"got Pair with 'features' \(2, 4, 6, 6\) and 'logits' \(2, 5\)"),
        ("Record", r"got Output with 'logits' \(2, 5\) and 'hidden' \(2, 4, 6, 6\)"),
        ("Nested", r"got dict with 'out' dict"),
    ],
)
def test_without_a_choice_the_message_lists_them(file: Path, name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load(f"{file}:{name}")


def test_answers_that_hold_no_logits(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(OTHER)
    with pytest.raises(InputError, match="got generator; return a tensor"):
        load(f"{tmp_path / 'other.py'}:Yields")
    with pytest.raises(InputError, match=r"in floating point from .*Rounds, got int64; return what it computes before"):
        load(f"{tmp_path / 'other.py'}:Rounds")


def test_wrong_choices(file: Path) -> None:
    with pytest.raises(InputError, match=r"expected 'logit' in the model's answer, got dict with 'features'"):
        load(f"{file}:Dict", "logit")
    with pytest.raises(InputError, match=r"expected '2' in the model's answer, got tuple"):
        load(f"{file}:Tuple", 2)
    with pytest.raises(InputError, match=r"got a tensor \(2, 5\); leave the choice of logits out"):
        load(f"{file}:Net", "logits")
    with pytest.raises(InputError, match=r"expected logits \(2, K\) .* got \(2, 4, 6, 6\)"):
        load(f"{file}:Dict", "features")


def test_the_choice_survives_into_a_bundle_and_back(file: Path, tmp_path: Path) -> None:
    loaded, x = load(f"{file}:Dict", "logits"), torch.rand(2, 3, 8, 8)
    protected = Protected(split(loaded.model, "c", x), Undefended(), CODECS.build("raw")).eval()
    save(
        protected, tmp_path / "b", name="b", model_spec=loaded.name, image_shape=(3, 8, 8), classes=list("abcde")
    )  # fmt: skip
    bundle = Bundle.load(tmp_path / "b")
    assert bundle.manifest.model.endswith("net.py:Dict?logits=logits")
    with torch.no_grad():
        assert torch.equal(restore(bundle, model=loaded.name)(x), protected(x))


def test_answers_in_words() -> None:
    @dataclass
    class Output:
        logits: Tensor

    assert chosen(Output(torch.ones(1)), "logits").item() == 1
    assert described(object()) == "object"
    assert described(dict.fromkeys("abcdefghij")).endswith("'h' NoneType and 2 more")


def test_a_module_and_a_class_stand_for_a_function(file: Path) -> None:
    assert load(f"{file}:made").classes == 5
    assert load(f"{file}:Net").classes == 5
    first, second = load(f"{file}:made"), load(f"{file}:made")
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    with pytest.raises(InputError, match=r"expected 7 logits .* got 5"):
        load_model(f"{file}:made", shape=(3, 8, 8), classes=7, weights=None)


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("Wants", (3, 8, 8), r"net.py:Wants needs 'width', 'depth' where SplitVeil gives 'shape' and 'classes'"),
        ("meta", (3, 8, 8), r"cannot take images of shape \(3, 8, 8\): .*; it takes 2 inputs \('x', 'meta'\)"),
        ("words", (3, 8, 8), r"has a dict 'words'"),
        ("made", (1, 8, 8), r"it takes images of 3 channels, not 1; add \?channels=3 to the .* --input 3x8x8"),
        ("made", (3, 2, 2), r"it takes images of 28x28 pixels, not 2x2; add \?size=28"),
    ],
)  # fmt: skip
def test_each_names_its_own_cause(file: Path, name: str, shape: tuple[int, int, int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load(f"{file}:{name}", shape=shape)


def test_half_precision_is_converted_and_told(file: Path) -> None:
    loaded = load(f"{file}:half")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert loaded.remarks == ("the model is made in float16 and computes in float32 here",)


def test_arguments_of_another_kind_get_a_sentence() -> None:
    with pytest.raises(InputError, match=r"load_model\(\) expected spec as str, got Linear; give that"):
        load_model(nn.Linear(2, 2), shape=None, classes=None, weights=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"load_model\(\) expected classes as int or None, got str '10'"):
        load_model("small", shape=None, classes="10", weights=None)  # type: ignore[arg-type]
