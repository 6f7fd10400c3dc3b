"""``repr`` of attacks, defences and codecs is the text that seeds and kept results hang on: byte for byte, for ever."""

from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from splitveil.core.registry import Registry, Spec
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.floors import MeanImage
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense
from splitveil.wire.codecs import CODECS

TABLES: dict[str, Registry[Any]] = {r.kind: r for r in (ATTACKS, DEFENSES, CODECS)}
PINNED = [line.split("\t") for line in (Path(__file__).parent / "specs.tsv").read_text().splitlines()]


@pytest.mark.parametrize(("kind", "spec", "text"), PINNED, ids=[spec for _, spec, _ in PINNED])
def test_the_text_of_a_spec_never_changes(kind: str, spec: str, text: str) -> None:
    assert repr(TABLES[kind].build(spec)) == text


@pytest.mark.parametrize("kind", TABLES)
def test_every_entry_is_pinned_with_every_option(kind: str) -> None:
    for name in TABLES[kind].names():
        own = [spec for spec in (Spec.parse(text) for k, text, _ in PINNED if k == kind) if spec.name == name]
        options = set(signature(TABLES[kind].get(name)).parameters) - {"args", "kwargs"}
        assert Spec(name) in own
        assert options <= {option for spec in own for option in spec.options}


class Kept(MeanImage):
    """An attack of a third party with options of every kind."""

    name = "kept"

    def __init__(self, inner: MeanImage, *, rate: float = 1.0, net: object = None, key: int = 0) -> None:
        self.inner, self.rate, self.net, self._key = inner, rate, object(), key


class Elsewhere(Defense):
    """A defence one of whose options has the name of a method."""

    name = "elsewhere"
    kept_as = {"parameters": "share"}  # noqa: RUF012

    def __init__(self, *, before: int = 1, parameters: float = 0.5, after: int = 2) -> None:
        super().__init__()
        self.before, self.share, self.after = before, parameters, after


def test_options_are_the_constructors_arguments_in_its_order() -> None:
    assert repr(Kept(MeanImage(), key=7)) == "kept:inner=mean,rate=1.0"
    assert Kept(MeanImage()).options() == {"inner": "mean", "rate": 1.0}
    assert repr(Elsewhere(parameters=1)) == "elsewhere:before=1,parameters=1,after=2"
    assert repr(MeanImage()) == "mean"
