"""Attacks from outside beside a suite's."""

from pathlib import Path

import pytest

from splitveil.core.errors import InputError, ThreatModelError, UnknownNameError
from splitveil.core.records import Card, Doubt, Role
from splitveil.lab.attacks.outside import outside_attack
from splitveil.lab.attacks.view import PRESETS
from splitveil.lab.auditing import audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.report import render

from .conftest import Trained

FILE = '''
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.linear import Linear
from splitveil.lab.attacks.view import Knows
from neighbour import GREY


class Strong(Linear):
    """The linear inverse by another name."""

    name = "strong"


class Blind(Attack):
    """Grey, whatever was sent."""

    name = "blind"
    needs = Knows.NOTHING

    def __init__(self, *, shade: float = GREY) -> None:
        self.shade = shade

    def run(self, view):
        return view.z.new_full((len(view.z), *view.image_shape), self.shade)


class Nameless(Attack):
    """Forgot something."""

    needs = Knows.NOTHING

    def run(self, view):
        return view.z
'''
WEAK = custom_suite(["decoder:size=tiny,epochs=1,steps=1"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("GREY = 0.5\n")
    (tmp_path / "theirs.py").write_text(FILE)
    return tmp_path / "theirs.py"


def test_who_is_ahead_is_told_and_doubts_the_worst_case_which_stays_the_suites(trained: Trained, file: Path) -> None:
    subject, out = trained.subject("relu1"), file.parent / "audit"
    plain = audit(subject, trained.data, suite=WEAK, n=40).card
    specs = [f"{file}:Strong", f"{file}:Blind:shade=0.4"]
    card = audit(subject, trained.data, suite=WEAK, n=40, against=specs, out=out).card
    strong, blind = card.against
    assert strong.ahead["psnr"].mean > 3
    assert strong.ahead["psnr"].share > 0.9
    assert strong.ahead["psnr"].interval[0] > 0
    assert strong.ahead["psnr"].worst > 3
    assert blind.ahead["psnr"].mean < 0
    rows = {r.attack: r for r in card.rows}
    before = {r.attack: r for r in plain.rows}
    lead = rows["strong"].psnr - rows["decoder"].psnr
    assert strong.ahead["psnr"].mean == pytest.approx(lead, abs=1e-3)
    for name, row in rows.items():
        if row.role is Role.WORST:
            assert (row.psnr, row.ssim) == (before[name].psnr, before[name].ssim)
            doubts = [Doubt(why) for why in row.unreliable if Doubt(why).kind == "beaten from outside"]
            assert doubts
            assert all("strong" in doubt and "blind" not in doubt for doubt in doubts)
    assert card.strongest[card.rows[0].place.label]["psnr"] == "strong"
    assert Card.load(out / "card.json") == card
    render([out], out / "report.html")
    assert "strong against the best of the suite&#39;s attacks" in (out / "report.html").read_text()


def test_who_is_not_ahead_raises_no_doubt(trained: Trained, file: Path) -> None:
    card = audit(
        trained.subject("relu1"), trained.data, suite=custom_suite(["linear"]), n=40, against=[f"{file}:Strong"]
    ).card
    assert card.against[0].ahead["psnr"].mean == 0 == card.against[0].ahead["psnr"].share
    assert not any("outside" in why for why in card.unreliable)


def test_what_the_registry_knows_is_taken_too() -> None:
    assert repr(outside_attack("linear")) == "linear"
    with pytest.raises(UnknownNameError, match="linear"):
        outside_attack("linaer")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("nowhere.py:Strong", "no such file"),
        ("{file}:Strnog", "Did you mean 'Strong'"),
        ("{file}", "expected FILE.py:ATTACK"),
        ("{file}:Blind:shde=1", "no option 'shde'"),
        ("{file}:Nameless", "to have 'name'"),
        ("attribute", "gives images back"),
    ],
)
def test_a_wrong_one_is_a_sentence(file: Path, spec: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        outside_attack(spec.format(file=file))


def test_what_is_not_granted_is_refused(trained: Trained) -> None:
    with pytest.raises(ThreatModelError, match="WEIGHTS"):
        audit(
            trained.subject("relu1"), trained.data, suite=custom_suite(["linear"]), n=20, against=["mle"],
            knows=PRESETS["black-box"],
        )  # fmt: skip
