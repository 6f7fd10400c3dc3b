"""Facts are hashed whole: whatever differs in them is another name."""

import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.view import PRESETS
from splitveil.lab.auditing.question import Question
from splitveil.lab.auditing.suites import SUITES, custom_suite
from splitveil.lab.comparing.facts import Carded, Shown
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.metrics import METRICS
from splitveil.lab.metrics.judge import Judge
from splitveil.lab.store import Facts
from splitveil.wire.codecs import CODECS


@dataclass(frozen=True)
class Of(Facts):
    value: object


class Plain:
    def __init__(self, level: float) -> None:
        self.level, self.inner = level, [level]
        self.itself = self


def net(scale: float = 1.0, *, more: bool = False) -> nn.Module:
    torch.manual_seed(0)
    first = nn.Linear(2, 2)
    first.weight.data *= scale
    return nn.Sequential(first, *([nn.ReLU()] if more else []))


def add(x: int, y: int) -> int:
    return x + y


DIFFERENT: list[Any] = [
    None, 0, 1, True, 1.0, "1", b"1", [1], [[1]], ["1"], {"a": 1}, {"b": 1}, {"a": {"b": 1}}, {1, 2}, {1, 3},
    np.zeros(2), np.zeros(3), np.zeros(2, np.int64), torch.zeros(2), net(), net(2.0), net(more=True),
    Plain(1.0), Plain(2.0),
    ATTACKS.build("decoder:epochs=2"), ATTACKS.build("decoder:epochs=3"), ATTACKS.build("mle:start=linear"),
    METRICS.build("registered_psnr:shift=1"), METRICS.build("registered_psnr:shift=2"), METRICS.build("gms"),
    CODECS.build("uniform:bits=4"), CODECS.build("uniform:bits=4").calibrate(np.eye(3, dtype=np.float32)),
    SUITES["smoke"], SUITES["standard"], PRESETS["white-box"], PRESETS["black-box"], Judge(net(), "a"),
    Judge(net(), "b"),
    Judge(net(2.0), "a"), partial(add, 1), partial(add, 2), add, nn.ReLU, nn.GELU,
]  # fmt: skip


def test_whatever_differs_is_another_name_and_what_is_equal_is_not() -> None:
    names = [Of(value).name for value in DIFFERENT]
    assert len(set(names)) == len(DIFFERENT)
    assert [Of(value).name for value in DIFFERENT] == names
    assert Of((1, 2)).name != Of(((1,), 2)).name
    assert Of(Of(1)).name == Of(Of(1)).name != Of(Of(2)).name


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.by * x


def test_what_a_module_holds_beside_weights_decides_too() -> None:
    def block(**more: Any) -> nn.Module:
        torch.manual_seed(0)
        return nn.TransformerEncoderLayer(8, 1, 8, batch_first=True, **more)

    nets = [Scaled(1.0), Scaled(0.05), nn.Sequential(Scaled(1.0)), nn.Sequential(Scaled(0.05)), block(),
            block(norm_first=True), block(activation=F.gelu), block(activation="gelu")]  # fmt: skip
    names = [Of(value).name for value in nets]
    assert len(set(names[:-1])) == len(nets) - 1
    assert names[-1] == names[-2]
    torch.manual_seed(0)
    assert Of(nn.MultiheadAttention(8, 1)).name != Of(nn.MultiheadAttention(8, 4)).name
    hooked = Scaled(1.0).train()
    hooked.register_forward_hook(lambda *_: None)
    hooked.eval()
    hooked(torch.ones(1))
    assert Of(hooked).name == names[0]


def test_a_defence_is_told_by_its_words_and_weights_not_by_what_training_left_or_a_secret() -> None:
    assert Of(DEFENSES.build("privynet")).name == Of(DEFENSES.build("privynet")).name
    assert Of(DEFENSES.build("noise:sigma=0.1")).name != Of(DEFENSES.build("noise:sigma=0.2")).name


def test_weights_of_every_type_have_a_name() -> None:
    def typed(kind: torch.dtype, last: float = 2.0) -> nn.Module:
        made = nn.Module()
        made.register_buffer("x", torch.tensor([1.0, last]).to(kind))
        return made

    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.complex64, torch.int8)
    assert len({Of(typed(kind)).name for kind in kinds}) == len(kinds)
    assert Of(typed(torch.bfloat16)).name == Of(typed(torch.bfloat16)).name != Of(typed(torch.bfloat16, 3.0)).name


def test_what_cannot_be_looked_into_is_never_found_again() -> None:
    assert Of(threading.Lock()).name != Of(threading.Lock()).name


def test_another_process_gives_the_same_name() -> None:
    code = (
        "from tests.lab.store.test_facts import Of; from splitveil.lab.attacks import ATTACKS;"
        "print(Of([{'a', 'b', 'c'}, ATTACKS.build('mle:start=[decoder:epochs=2]')]).name)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == Of([{"a", "b", "c"}, ATTACKS.build("mle:start=[decoder:epochs=2]")]).name


def test_what_a_machine_is_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Of(1).name
    threads = torch.get_num_threads()
    monkeypatch.setattr("splitveil.lab.seeds.hardware", lambda: "another one")
    torch.set_num_threads(threads + 1)
    try:
        assert Of(1).name == before
    finally:
        torch.set_num_threads(threads)


def test_every_part_of_a_question_decides_its_card() -> None:
    images = Images(np.zeros((4, 1, 2, 2), np.uint8), np.arange(4) % 2)
    data = Dataset("d", images, images, ("a", "b"))
    other = Dataset("d", images, Images(images.x + 1, images.y), ("a", "b"))
    first = Question(suite=custom_suite(["linear"]))

    def name(question: Question = first, data: Dataset = data, seed: int = 0, words: str = "w") -> str:
        return Carded.of("c", ("m", words), (Of(1),), Shown.of(data), question, seed).name

    changes: list[dict[str, Any]] = [
        {"suite": custom_suite(["linear", "mean"])}, {"suite": replace(first.suite, max_aux=5)},
        {"suite": replace(first.suite, fallback=("shadow",))}, {"suite": replace(first.suite, stochastic=("repeat",))},
        {"knows": PRESETS["black-box"]}, {"n": 4}, {"aux": data}, {"aux": other}, {"aux_n": 3}, {"metrics": ("gms",)},
        {"judge": Judge(net(), "a")}, {"judge": Judge(net(2.0), "a")}, {"plates": data}, {"samples": 1},
        {"examiners": (Plain,)}, {"examiners": (lambda x: Plain(1.0),)}, {"examiners": (lambda x: Plain(2.0),)},
        {"against": (ATTACKS.build("linear"),)},
    ]  # fmt: skip
    names = [name(), name(data=other), name(seed=1), name(words="x"), *(name(replace(first, **c)) for c in changes)]
    assert len(set(names)) == len(names)
    assert set(Question.__dataclass_fields__) == {key for c in changes for key in c}, "a new field needs a case"
