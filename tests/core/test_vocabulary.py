"""The words that several layers share: places, roles and doubts."""

import re
from pathlib import Path

import pytest

from splitveil.core.records import CHECKS, FLOORS, Doubt, Place, Role, chosen_by, worst_case

DOCS = Path(__file__).parents[2] / "docs"


def test_a_place_is_its_text_byte_for_byte() -> None:
    place = Place("layer1", "noise:sigma=0.5", "raw")
    assert place.label == "layer1 | noise:sigma=0.5 | raw"
    assert place.text("decoder:epochs=6", "task") == "layer1 | noise:sigma=0.5 | raw | decoder:epochs=6 | task"


@pytest.mark.parametrize(
    ("attack", "role", "metric"),
    [
        ("mean", Role.FLOOR, None),
        ("nearest", Role.FLOOR, None),
        ("decoder:epochs=6", Role.ATTACK, None),
        ("meaning", Role.ATTACK, None),
        (worst_case("psnr"), Role.WORST, "psnr"),
        ("worst_case:ssim", Role.WORST, "ssim"),
    ],
)
def test_an_attack_s_name_tells_its_role(attack: str, role: Role, metric: str | None) -> None:
    assert Role.of(attack) is role
    assert chosen_by(attack) == metric


def test_floors_are_attacks_of_ours() -> None:
    assert list(FLOORS) == ["mean", "class_mean", "nearest"]


def test_a_doubt_is_text_with_a_kind_and_details() -> None:
    doubt = Doubt.of("few images", "12 private images: too few")
    assert doubt == "few images: 12 private images: too few"
    assert (doubt.kind, doubt.detail, doubt.passes_on) == ("few images", "12 private images: too few", True)
    assert (Doubt("of a plug-in").kind, Doubt("of a plug-in").detail) == ("of a plug-in", "")
    assert not Doubt("below the floor: 8 dB").passes_on


def test_the_page_of_self_checks_has_all_of_them_in_order() -> None:
    table = re.findall(r"^\| ([^|]+) \|", (DOCS / "audit-checks.md").read_text(), re.M)
    assert [kind for kind in table if kind in CHECKS] == list(CHECKS)
