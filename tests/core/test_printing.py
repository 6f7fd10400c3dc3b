"""Words of others on a terminal."""

import pytest

from splitveil.core.printing import escaped, printable


@pytest.mark.parametrize("said", ["\x1b[2J", "\x9b2J", "a\rb", "\u202egnp", "\x07", "\u2028", "\x00", "\udcff"])
def test_nothing_that_controls_a_terminal_stays(said: str) -> None:
    for shown in (printable(said), escaped(said), escaped(f"a\n{said}", keep="\n").replace("\n", "")):
        assert shown.isprintable()
        assert shown.isascii()


def test_what_prints_stays_and_what_is_long_is_cut() -> None:
    assert printable("Größe 7, 猫") == escaped("Größe 7, 猫") == "Größe 7, 猫"
    assert escaped("one\ntwo", keep="\n") == "one\ntwo"
    assert printable("x" * 10**6, 10) == "x" * 9 + "…"
    assert len(printable("\x1b" * 10**6, 50)) == 50
