"""Attacks by the law of a defence against the same attacks by its mean."""

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.law import ByLaw, known_law
from splitveil.lab.attacks.parts.likelihood import Likelihood
from splitveil.lab.attacks.view import PRESETS, Aux, Knows, View
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense
from splitveil.lab.metrics import METRICS
from splitveil.wire.codecs import CODECS

from .conftest import KNOWN, PRIVATE, SIZE, Make, images, labels

MLE = "mle:steps=40,start=mean,prior=0.003,rate=0.1"


def edge() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())


def view_of(defense: Defense, codec: str = "raw", *, crossings: int = 1, knows: Knows = PRESETS["white-box"]) -> View:
    net, private, known = edge().eval(), images(PRIVATE, 1), images(KNOWN, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        hidden, clean = net(private.float() / 255), net(known.float() / 255)
        defense.calibrate(clean)
        wire = CODECS.build(codec).calibrate(defense(clean))

        def seen(z: Tensor) -> Tensor:
            with torch.no_grad():
                z_hat: Tensor = wire.decode(wire.encode(defense(z)))
                return z_hat

        z, *more = (seen(hidden) for _ in range(crossings))
    return View(
        z, (3, SIZE, SIZE), knows=knows, aux=Aux(known, labels(known)), observe=lambda index: seen(clean[index]),
        query=lambda x: seen(net(x)), edge=net, defense=defense, cloud=nn.Flatten(), seed=0, codec=wire,
        again=torch.stack(more) if more else None, stochastic=defense.stochastic,
    )  # fmt: skip


def psnr(spec: str, view: View) -> float:
    attack = ATTACKS.build(spec)
    assert isinstance(attack, Attack)
    return METRICS.build("psnr")(images(PRIVATE, 1).float() / 255, attack(view).x_hat).mean().item()


@pytest.mark.parametrize(
    ("defense", "codec", "gain"),
    [("dropout:rate=0.4", "raw", 2.0), ("dropout:rate=0.4", "uniform:bits=4", 1.0), ("top_k:keep=0.2", "raw", 0.5)],
)
def test_one_crossing_tells_more_to_who_knows_what_is_exact(defense: str, codec: str, gain: float) -> None:
    mean = psnr(MLE, view_of(DEFENSES.build(defense), codec))
    assert psnr(f"law:attack=[{MLE}]", view_of(DEFENSES.build(defense), codec)) > mean + gain


def test_sixteen_crossings_of_dropped_features_are_the_features() -> None:
    whole = psnr(MLE, view_of(DEFENSES.build("none")))
    mean, law = (
        psnr(f"{name}:attack=[{MLE}],k=16", view_of(DEFENSES.build("dropout:rate=0.4"), crossings=16))
        for name in ("repeat", "law")
    )
    assert law > mean + 1
    assert law == pytest.approx(whole, abs=0.6)


def test_what_the_inner_attack_learns_from_went_through_the_same() -> None:
    view = view_of(DEFENSES.build("dropout:rate=0.4"), crossings=16)
    clean = view_of(DEFENSES.build("none"))
    seen: list[View] = []

    class Looking(Attack):
        name = "looking"
        needs = Knows.AUX | Knows.QUERIES | Knows.DEFENSE

        def run(self, view: View) -> Tensor:
            seen.append(view)
            return torch.zeros(len(view.z), *view.image_shape)

    attack = ByLaw(attack="mean", k=16)
    attack.attack = Looking()
    attack(view)
    index = torch.arange(200)
    assert torch.equal(seen[0].z, clean.z)
    assert torch.equal(seen[0].observe(index), clean.observe(index))
    assert torch.equal(seen[0].query(view.aux.images(index)), clean.query(view.aux.images(index)))
    assert torch.equal(seen[0].defense(clean.z), clean.z)
    assert view.observed == 16 * 200


def test_where_there_is_nothing_to_know_it_is_the_inner_attack(make_view: Make) -> None:
    assert psnr(f"law:attack=[{MLE}]", view_of(DEFENSES.build("none"))) == pytest.approx(
        psnr(MLE, view_of(DEFENSES.build("none"))), abs=0.01
    )
    assert psnr(f"law:attack=[{MLE}],k=4", view_of(DEFENSES.build("noise"), crossings=4)) == pytest.approx(
        psnr(f"repeat:attack=[{MLE}],k=4", view_of(DEFENSES.build("noise"), crossings=4)), abs=0.1
    )
    # A defence that tells nothing: as `repeat`, to the last bit.
    found = []
    for name in ("repeat", "law"):
        attack = ATTACKS.build(f"{name}:attack=nearest,k=4")
        assert isinstance(attack, Attack)
        found.append(attack(make_view(edge(), sigma=0.3, crossings=4)[0]).x_hat)
    assert torch.equal(*found)


def test_a_law_is_told_to_those_who_know_the_defence_and_ends_where_the_features_change() -> None:
    dropout = DEFENSES.build("dropout")
    assert known_law(view_of(dropout), 1) is not None
    assert known_law(view_of(dropout, knows=PRESETS["black-box"]), 1) is None
    view = view_of(dropout)
    view.law = known_law(view, 1)
    assert view.within("start", view.knows).law is view.law
    assert view.within("start", view.knows, z=view.z).law is view.law
    assert view.within("units", view.knows, edge=nn.Identity()).law is None
    assert view.within("often", view.knows, observe=lambda index: view.observe(index)).law is None
    random = view_of(dropout)
    random.edge_draws = True
    assert known_law(random, 1) is None


def test_its_evidence_and_its_options() -> None:
    view = view_of(DEFENSES.build("dropout"), crossings=3)
    attack = ATTACKS.build(f"law:attack=[{MLE}],k=3")
    assert isinstance(attack, ByLaw)
    told = attack(view).evidence
    assert told["crossings"] == 3
    assert told["draws"] >= 2, "the law needs no draws"
    assert repr(ATTACKS.build(repr(attack))) == repr(attack)
    assert ATTACKS.build("law").crossings == 1
    with pytest.raises(InputError, match="raise its k"):
        ATTACKS.build("law:attack=[repeat:attack=linear,k=2]")
    with pytest.raises(InputError, match="use law:k=8"):
        ATTACKS.build("law:k=0")


def test_a_search_sees_a_gradient_through_the_law() -> None:
    view = view_of(DEFENSES.build("top_k:keep=0.1"))
    view.law = known_law(view, 1)
    start = view.aux.images().mean(0).expand(PRIVATE, -1, -1, -1)
    assert Likelihood(view, 1).blind(start, view.z) == 0
