import pytest

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.registry import Registry, Spec
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.metrics import METRICS


class Thing:
    """A thing with options."""

    def __init__(self, size: int = 1, *, word: str = "a") -> None:
        if size < 0:
            raise ValueError("size is negative")
        self.size, self.word = size, word


THINGS: Registry[Thing] = Registry("thing", {"thing": f"{__name__}:Thing"})


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a", {}),
        ("a:k=1", {"k": 1}),
        ("a:k=1,word=b,x=0.5,on=true,no=None", {"k": 1, "word": "b", "x": 0.5, "on": True, "no": None}),
        ("a:k=-1e-3", {"k": -1e-3}),
    ],
)
def test_specs_parse_and_print(text: str, options: dict[str, object]) -> None:
    spec = Spec.parse(text)
    assert (spec.name, dict(spec.options)) == ("a", options)
    assert Spec.parse(str(spec)) == spec


@pytest.mark.parametrize("text", ["a:k", "a:=1", "a:1k=2"])
def test_bad_specs_say_how_to_write_them(text: str) -> None:
    with pytest.raises(InputError, match="write for example"):
        Spec.parse(text)


def test_builds_with_options() -> None:
    assert THINGS.build("thing:size=3").size == 3
    assert THINGS.build(Spec("thing", {"word": "b"})).word == "b"
    assert THINGS.build("thing", size=4).size == 4
    assert THINGS.describe() == [("thing", "A thing with options.")]


def test_errors_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown thing 'thinge'. Did you mean 'thing'"):
        THINGS.build("thinge")
    with pytest.raises(InputError, match=r"no option 'sise'. Did you mean 'size'"):
        THINGS.build("thing:sise=2")
    with pytest.raises(InputError, match="size is negative"):
        THINGS.build("thing:size=-1")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("disco:hard=no", "expected hard to be true or false, got 'no'; use disco:hard=True"),
        ("privynet:keep=2.5", "expected keep to be a whole number, got 2.5; use privynet:keep=0"),
        ("noise:sigma=1e999", "expected sigma to be a finite number, got inf; use noise:sigma=0.5"),
        ("noise:sigma=true", "expected sigma to be a number, got True; use noise:sigma=0.5"),
        ("adversarial:aim=low", "expected aim to be a finite number, got 'low'"),
    ],
)
def test_options_are_of_the_kind_that_their_annotation_names(spec: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        DEFENSES.build(spec)


@pytest.mark.parametrize("spec", ["noise:sigma=2", "adversarial:aim=None", "privynet:key=1", "privynet:key=word"])
def test_options_of_that_kind_are_taken(spec: str) -> None:
    DEFENSES.build(spec)


def test_options_that_are_needed_are_named() -> None:
    told = "metric 'lpips' needs backbone_weights and lin_weights; write lpips:backbone_weights=...,lin_weights=..."
    with pytest.raises(InputError, match=told):
        METRICS.build("lpips")


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("mle", "mle"),
        ("mle:steps=9", "mle:steps=9"),
        ("repeat:attack=[mle:steps=9],k=4", "repeat of mle"),
        ("repeat:attack=linear", "repeat of linear"),
        ("", ""),
    ],
)
def test_a_short_name_says_what_an_attack_builds_on(text: str, short: str) -> None:
    assert Spec.parse(text).short == short
