import pytest
import torch
from torch import nn

from splitveil.core.errors import InputError, SplitVeilError, ThreatModelError
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.view import PRESETS, Knows, View

from .conftest import Make


@pytest.mark.parametrize(
    ("grant", "read"),
    [
        (Knows.AUX, lambda v: v.aux),
        (Knows.AUX | Knows.QUERIES, lambda v: v.observe(torch.arange(2))),
        (Knows.QUERIES, lambda v: v.query(torch.rand(1, 3, 16, 16))),
        (Knows.WEIGHTS, lambda v: v.edge),
        (Knows.DEFENSE, lambda v: v.defense),
        (Knows.CLOUD, lambda v: v.cloud),
    ],
)
def test_a_read_needs_its_grant(grant: Knows, read, make_view: Make) -> None:  # type: ignore[no-untyped-def]
    assert read(make_view(nn.Identity(), knows=grant)[0]) is not None
    for part in grant:
        view, _ = make_view(nn.Identity(), knows=~Knows.NOTHING & ~part)
        with pytest.raises(ThreatModelError, match="not"):
            read(view)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("white-box", PRESETS["white-box"]),
        ("aux, queries", Knows.AUX | Knows.QUERIES),
        ("query-free,weights", Knows.AUX | Knows.CLOUD | Knows.WEIGHTS),
        ("", Knows.NOTHING),
    ],
)
def test_grants_in_words(text: str, expected: Knows) -> None:
    assert Knows.parse(text) == expected


def test_an_unknown_grant_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"unknown grant 'everything'.*white-box.*weights"):
        Knows.parse("everything")


class Wrong(Attack):
    name = "wrong"
    needs = Knows.NOTHING

    def run(self, view: View) -> torch.Tensor:
        return torch.zeros(1, 1, 2, 2)


class Wild(Attack):
    name = "wild"
    needs = Knows.NOTHING

    def run(self, view: View) -> torch.Tensor:
        return torch.full((len(view.z), *view.image_shape), 3.0)


def test_the_caller_checks_shapes_and_clips(make_view: Make) -> None:
    view, _ = make_view(nn.Identity())
    with pytest.raises(SplitVeilError, match="expected images"):
        Wrong()(view)
    found = Wild()(view)
    assert found.x_hat.max() == 1
    assert found.clipped == 1
