"""The canonical form of features does not change with maps that lose nothing, and attacks see all alike in it."""

import pytest
import torch
from benchmarks.lossless import FAMILIES, Pointwise, draw
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.canonical import FORM, UNDER, Canonical
from splitveil.lab.attacks.parts.form import Form
from splitveil.lab.attacks.view import PRESETS, Knows, View
from splitveil.lab.metrics import METRICS

from .conftest import Make, images

TINY = "decoder:size=tiny,epochs=1,steps=4"


class Looking(Attack):
    """Keeps the view that it gets."""

    name = "looking"
    needs = Knows.AUX | Knows.QUERIES
    seen: list[View] = []  # noqa: RUF012

    def run(self, view: View) -> Tensor:
        Looking.seen.append(view)
        return torch.zeros(len(view.z), *view.image_shape)


def edge() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 12, 3, 1, 1)).eval()


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer places to learn from."""
    monkeypatch.setattr("splitveil.lab.attacks.parts.places.ROWS", 3000)
    monkeypatch.setattr("splitveil.lab.attacks.parts.places.ASIDE_ROWS", 800)


def looked(view: View) -> View:
    attack = Canonical(attack="mean")
    attack.attack, attack.needs = Looking(), Looking.needs
    attack(view)
    return Looking.seen.pop()


def build(spec: str) -> Attack:
    attack = ATTACKS.build(spec)
    assert isinstance(attack, Attack)
    return attack


def features(count: int = 64) -> Tensor:
    with torch.no_grad():
        z: Tensor = edge()(images(count, 2).float() / 255)
    return z


BENDING = ("exp", "log", "sinh", "odd powers")
"""Such as the form undoes nearly, so that channels of which an image tells about as much may be turned a little."""
SAME = [f for f in FAMILIES if f not in (*BENDING, "order of features", "factors of features", "idle stream", "decoys")]
"""Families whose maps the form undoes wholly."""


@pytest.mark.parametrize("family", SAME)
def test_the_form_is_the_same_whatever_was_done_to_the_channels(family: str, make_view: Make) -> None:
    drawn = draw(family, features(), 1)
    assert drawn.loss(features()) < 1e-4
    plain = looked(make_view(edge())[0]).z
    found = looked(make_view(drawn.edge(edge()))[0]).z
    assert found.shape == plain.shape
    pairs = zip(plain.transpose(0, 1).flatten(1), found.transpose(0, 1).flatten(1), strict=True)
    alike = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1].abs() for pair in pairs])
    assert alike.mean() > 0.98


@pytest.mark.long
@pytest.mark.parametrize("family", [f for f in BENDING if f != "log"])
def test_bent_channels_tell_a_linear_attack_nearly_as_much_as_straight_ones(family: str, make_view: Make) -> None:
    def got(spec: str, net: nn.Module) -> float:
        view, truth = make_view(net)
        return METRICS.build("psnr")(truth, build(spec)(view).x_hat).mean().item()

    bent = draw(family, features(), 1).edge(edge())
    plain, raw = got("linear", edge()), got("linear", bent)
    assert got("canonical:attack=linear", bent) > (plain + raw) / 2 > raw + 0.2


def test_all_that_an_attack_sees_is_brought_to_the_form_alike(make_view: Make) -> None:
    view, x = make_view(drawn_edge(), cloud=nn.Flatten())
    inner = looked(view)
    assert torch.allclose(inner.z, inner.query(x), atol=1e-4)
    assert torch.allclose(inner.z, inner.defense(inner.edge(x)), atol=1e-4)
    assert torch.allclose(inner.observe(torch.arange(3)), inner.query(view.aux.images(torch.arange(3))), atol=1e-4)
    assert torch.allclose(inner.cloud(inner.z), view.z.flatten(1), atol=1e-2 * float(view.z.std()))


def drawn_edge() -> nn.Module:
    return draw("mixing to 1e3", features(), 2).edge(edge())


def test_each_feature_gets_units_of_its_own_where_it_needs_them(make_view: Make) -> None:
    single = FORM_OF(make_view, "factors of features").told["single"]
    assert single == 1
    assert FORM_OF(make_view, "signs").told["single"] == 0


def FORM_OF(make_view: Make, family: str) -> Form:  # noqa: N802
    view, _ = make_view(draw(family, features(), 3).edge(edge()))
    looked(view)
    form = view.shared.made[FORM]
    assert isinstance(form, Form)
    return form


def test_what_inner_attacks_share_is_made_once(make_view: Make) -> None:
    view, _ = make_view(edge())
    attacks = [build(f"canonical:attack=[{TINY}]"), build(f"canonical:attack=[mle:steps=1,start=[{TINY}]]")]
    for attack in attacks:
        attack(view)
    assert set(view.shared.made) <= {key for attack in attacks for key in attack.shares(stochastic=False)}
    assert sum(key.startswith(f"{UNDER}decoder") for key in view.shared.made) == 1
    assert not any(key.startswith("decoder") for key in view.shared.made)


def test_against_noise_and_without_queries_features_stay_as_they_come(make_view: Make) -> None:
    view, _ = make_view(edge(), sigma=0.1)
    assert torch.equal(looked(view).z, view.z)
    view, truth = make_view(edge(), knows=Knows.WEIGHTS | Knows.DEFENSE)
    assert build("canonical:attack=[mle:steps=2]")(view).x_hat.shape == truth.shape


def test_it_needs_what_the_inner_attack_needs_and_holds_no_other_such() -> None:
    attack = build("canonical:attack=[mle:steps=3]")
    assert attack.needs == build("mle").needs
    assert repr(build(repr(attack))) == repr(attack)
    with pytest.raises(InputError, match=r"canonical to hold another attack.*use canonical:attack=decoder"):
        build("canonical:attack=[canonical:attack=linear]")
    with pytest.raises(InputError, match="gives labels"):
        build("canonical:attack=completion")


def test_a_search_is_not_led_astray_by_an_edge_that_spoils_gradients(make_view: Make) -> None:
    spec = "mle:steps=40,rate=0.2,prior=0.0,start=mean"
    spoilt = nn.Sequential(edge(), Pointwise(lambda z: torch.round(100 * z) / 100 + 1e-3 * torch.sin(1000 * z)))

    def got(spec: str, net: nn.Module) -> tuple[float, dict[str, float]]:
        view, truth = make_view(net)
        found = build(spec)(view)
        return METRICS.build("psnr")(truth, found.x_hat).mean().item(), dict(found.evidence)

    plain, honest = got(f"canonical:attack=[{spec}]", edge())
    raw, _ = got(spec, spoilt)
    mended, told = got(f"canonical:attack=[{spec}]", spoilt)
    assert mended > raw + 5
    assert mended > plain - 4, "rounding loses something"
    assert (honest["mended"], honest["slope"] > 0.9) == (0, True)
    assert (told["mended"], told["slope"] > 0.75) == (2, True)


def test_white_box_rows_tell_of_gradients_and_black_box_rows_do_not(make_view: Make) -> None:
    view, _ = make_view(edge(), knows=PRESETS["black-box"])
    assert "slope" not in build("canonical:attack=linear")(view).evidence
