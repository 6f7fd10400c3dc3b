"""Numbers and names."""

import pytest

from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.view import Knows
from splitveil.lab.auditing.words import words_of
from splitveil.lab.metrics import ALWAYS, METRICS
from splitveil.report import words


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (words.decibels(32.14), "32.1"),
        (words.similarity(0.984), "0.98"),
        (words.similarity(-0.004), "0.00"),
        (words.signed(-0.0004, 3), "0.000"),
        (words.span((-0.04, 0.128), 2), "\N{MINUS SIGN}0.04 to 0.13"),
        (words.span(None, 2), ""),
        (words.error(0.012344), "0.01234"),
        (words.error(1.4e-6), "1.4e\N{MINUS SIGN}06"),
        (words.error(0.0), "0.00000"),
        (words.percents((0.88, 0.9134)), "88.0 to 91.3 %"),
        (words.listing([]), ""),
        (words.listing(["a"]), "a"),
        (words.listing(["a", "b", "c"]), "a, b and c"),
        (words.similarity(-0.13), "\N{MINUS SIGN}0.13"),
        (words.percent(0.9214), "92.1 %"),
        (words.percent(None), "\N{EN DASH}"),
        (words.size(512), "512 B"),
        (words.size(16384), "16.0 KiB"),
        (words.size(3 << 20), "3.0 MiB"),
        (words.quantity(950), "950"),
        (words.quantity(41_000_000), "41.0 M"),
        (words.duration(0.42), "0.4 s"),
        (words.duration(95), "95 s"),
        (words.duration(700), "12 min"),
        (words.duration(11_520), "3.2 h"),
    ],
)
def test_numbers_read_as_text(found: str, expected: str) -> None:
    assert found == expected


def test_grants_have_words() -> None:
    assert set(words.GRANTS) == {k.name for k in Knows}
    assert set(words.NEEDS) == set(words.GRANTS)
    assert words.grants(["CLOUD", "MOON"]) == ["runs the cloud half", "MOON"]


def test_every_attack_of_ours_has_a_line() -> None:
    assert all(words_of(name) for name in (*ATTACKS.names(), *METRICS.names()) if name not in ALWAYS)


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        (["AUX", "QUERIES"], "holds own images and may query the edge: black box"),
        (["AUX", "CLOUD"], "holds own images and runs the cloud half: query-free"),
        (["WEIGHTS", "DEFENSE"], "has the edge half and knows the defence: white box"),
        (["MOON"], "MOON: query-free"),
        ([], "only reads the wire: query-free"),
    ],
)
def test_a_row_s_adversary_in_words(needs: list[str], expected: str) -> None:
    assert f"{words.threat(needs)}: {words.box(needs)}" == expected


def test_an_attack_with_options_keeps_its_line() -> None:
    line = "A network, trained on the adversary's own images and their features, that turns features into images."
    assert words.attack_line("decoder:epochs=3", {}) == line
    assert words.attack_line("decoder:epochs=3", {"decoder": "Its own words."}) == "Its own words."
    assert words.attack_line("worst_case:psnr", {}).startswith("No attack of its own")
    assert words.extra_line("pa@resnet20", {}).startswith("Privacy accuracy")
    assert words.extra_line("moon", {}) == "A metric that this report has no description of."
    assert words.attack_label("decoder:epochs=3") == "decoder:epochs=3"
