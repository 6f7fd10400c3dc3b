import pytest
import torch

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.records import Cut
from splitveil.lab.cut import trace
from splitveil.lab.models.loader import load_model
from splitveil.lab.planning.space import DEFENSES, Space


@pytest.fixture(scope="module")
def cuts() -> list[Cut]:
    model = load_model("small", shape=(1, 8, 8), classes=10, weights=None).model
    return [c for c in trace(model, torch.zeros(2, 1, 8, 8)).cuts() if c.name in ("pool1", "relu1")]


def test_the_grid_is_every_cut_family_level_and_codec(cuts: list[Cut]) -> None:
    found = Space.of(cuts, ["none", "noise", "bottleneck"], ["raw", "uniform:bits=4"]).grid((0.5, 0.75))
    assert len(found) == len({o.label for o in found}) == 2 * (1 + 2 + 2) * 2
    assert [o.cut for o in found[:10]] == ["relu1"] * 10, "shallowest first, however they were given"
    assert {o.defense for o in found if o.family == "noise"} == {
        "noise:sigma=0.3162,clip=1.0",
        "noise:sigma=1.778,clip=1.0",
    }
    narrow = next(o for o in found if o.family == "bottleneck" and o.cut == "relu1")
    assert narrow.defense.startswith("bottleneck:channels=6,"), "a knob of channels ends at those of the cut: 32 to 1"


def test_settings_that_turn_out_the_same_are_one_and_given_options_stay(cuts: list[Cut]) -> None:
    space = Space.of(cuts[:1], ["noise:sigma=0.7"], ["raw"])
    assert [o.defense for o in space.grid()] == ["noise:sigma=0.7,clip=1.0"]
    wide = Space.of(cuts[:1], ["bottleneck"], ["raw"])
    assert len(wide.grid((0.98, 1.0))) == 1


def test_the_defaults_can_all_be_built(cuts: list[Cut]) -> None:
    assert len(Space.of(cuts, DEFENSES, ["raw"]).grid()) > 20


def test_mistakes_name_their_remedy(cuts: list[Cut]) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'noise'"):
        Space.of(cuts, ["noize"], ["raw"])
    with pytest.raises(InputError, match="--codec"):
        Space.of(cuts, ["uniform"], ["raw"])
    with pytest.raises(InputError, match="twice"):
        Space.of(cuts, ["noise", "noise"], ["raw"])
    with pytest.raises(InputError, match="at least one cut"):
        Space.of([], ["noise"], ["raw"])
