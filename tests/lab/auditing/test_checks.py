from typing import Any

import numpy as np
import pytest

from splitveil.core.errors import UnknownNameError
from splitveil.core.records import CHECKS, FLOORS, Accuracy, LabelRow, Lost, Role, Row, Score
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.view import PRESETS
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.checks import (
    check_budget_told,
    check_data,
    check_labels,
    check_lost,
    check_net,
    check_rows,
    check_tail,
    inherited,
)
from splitveil.lab.auditing.duplicates import copies, near_duplicates
from splitveil.lab.auditing.suites import SUITES, Suite, custom_suite, find_suite

from .conftest import Trained

WHITE, BLACK = ["AUX", "WEIGHTS"], ["AUX", "QUERIES"]


def row(attack: str = "mle", psnr: float = 20, needs: list[str] = WHITE, **more: Any) -> Row:
    fixed: dict[str, Any] = {
        "cut": "c", "defense": "none", "codec": "raw", "n": 100, "mse": 0.01, "ssim": 0.5, "psnr_worst5": psnr,
        "ssim_worst5": 0.5, "seconds": 1.0, "psnr_interval": (psnr - 0.5, psnr + 0.5),
    }  # fmt: skip
    return Row(attack=attack, psnr=psnr, needs=needs, **(fixed | more))


def kinds(tested: Row, *others: Row, stochastic: bool = False, untrained: bool = False) -> list[str]:
    """What is raised on `tested` beside a mean image of 12 dB and the others."""
    found = check_rows([row("mean", 12, ["AUX"]), tested, *others], stochastic=stochastic, untrained=untrained)
    assert not found[0], "a floor attacks no defence"
    return [reason.partition(":")[0] for reason in found[1]]


NOISY = {"stochastic": True}
CASES: list[tuple[str, Row, Row, dict[str, Any]]] = [
    ("not finite", row(evidence={"finite": 0.0}), row(), {}),
    ("not finite", row(mse=float("nan")), row(), {}),
    ("few images", row(n=19), row(n=20), {}),
    ("few images", row(psnr_interval=(18.0, 21.1)), row(psnr_interval=(18.0, 20.9)), {}),
    ("below the floor", row(psnr=11.4), row(psnr=11.6), {}),
    ("below the floor", row(psnr=7.9, evidence={"sampled": 1.0}), row(psnr=8.1, evidence={"sampled": 1.0}), {}),
    ("unaveraged noise", row(), row(evidence={"draws": 4.0}), NOISY),
    ("unaveraged noise", row(evidence={"draws": 1.0}), row(evidence={"draws": 2.0}), NOISY),
    ("unaveraged noise", row(needs=BLACK, evidence={"reads": 1.0}), row(needs=BLACK, evidence={"reads": 2.0}), NOISY),
    ("zero gradients", row(evidence={"gradient": 0.06}), row(evidence={"gradient": 0.04}), {}),
    ("misleading gradients", row(evidence={"slope": 0.4}), row(evidence={"slope": 0.6}), {}),
    ("search without gain", row(evidence={"stuck": 0.6}), row(evidence={"stuck": 0.4}), {}),
    ("under-trained", row(evidence={"gain": 0.31}), row(evidence={"gain": 0.29}), {}),
    ("over-fitted", row(psnr=12.2, evidence={"gap": 3.5}), row(psnr=12.8, evidence={"gap": 9.0}), {}),
    ("over-fitted", row(psnr=12.2, evidence={"gap": 3.5}), row(psnr=12.2, evidence={"gap": 2.5}), {}),
    ("scale dependent", row(evidence={"scale": -0.6}), row(evidence={"scale": 0.4}), {}),
]


@pytest.mark.parametrize(("kind", "bad", "good", "how"), CASES)
def test_each_check_is_raised_alone_and_explained(kind: str, bad: Row, good: Row, how: dict[str, Any]) -> None:
    assert kinds(bad, **how) == [kind]
    assert kinds(good, **how) == []
    assert CHECKS[kind].raised_if
    assert CHECKS[kind].meaning


def test_an_untrained_defence_is_doubted_in_every_row_but_the_floors() -> None:
    assert kinds(row(defense="nopeek:weight=1.0"), untrained=True) == ["untrained defence"]
    assert kinds(row(defense="nopeek:weight=1.0")) == []
    assert (
        "nopeek works by training"
        in check_rows([row(defense="nopeek:weight=1.0")], stochastic=False, untrained=True)[0][0]
    )
    label = LabelRow(
        cut="c", defense="veil", codec="raw", attack="attribute", needs=BLACK, attribute="task", classes=10, n=100,
        accuracy=0.5, chance=0.1, seconds=1.0,
    )  # fmt: skip
    assert [why.partition(":")[0] for why in check_labels(label, stochastic=False, untrained=True)] == [
        "untrained defence"
    ]
    assert check_labels(label, stochastic=False) == []
    assert "trained for no epoch" in CHECKS["untrained defence"].raised_if


def test_too_few_test_images_for_a_budget_are_told_with_how_many_would_do() -> None:
    few, many = Lost.of(23, 2, 1, 7), Lost.of(2300, 200, 100, 700)
    (why,) = check_lost(few, 3)
    assert why.startswith("few test images: 33 leave the points lost between")
    assert "3 from none" in why
    assert check_lost(many, 3) == []
    enough = int(why.partition("some ")[2].partition(" ")[0].replace(",", ""))
    same = [round(count * enough / 33) for count in (23, 2, 1, 7)]
    assert check_lost(Lost.of(*same), 3) == []
    (why,) = check_budget_told(Accuracy.of(15, 16), 3, "images to tune by")
    assert why.startswith("few test images: 16 images to tune by tell an accuracy to")
    assert check_budget_told(Accuracy.of(4600, 5000), 1) == []
    assert CHECKS["few test images"].raised_if.startswith("a comparison")


def test_a_sound_row_raises_nothing_even_without_noise() -> None:
    assert kinds(row(evidence={"draws": 1.0, "reads": 1.0})) == []


def test_black_box_beats_white_box_on_the_best_white_row_only() -> None:
    rows = [row("mean", 12, ["AUX"]), row("mle", 19), row("glass", 20), row("decoder", 20.6, BLACK)]
    found = check_rows(rows, stochastic=False)
    assert [bool(reasons) for reasons in found] == [False, False, True, False]
    assert found[2][0].startswith("black box beats white box: decoder")
    rows[3] = row("decoder", 20.4, BLACK)
    assert not any(check_rows(rows, stochastic=False))
    assert not any(check_rows([row("nearest", 25, BLACK), row("mle", 20)], stochastic=False)), "floors are no attacks"


def test_weights_need_not_make_up_for_fifteen_more_readings() -> None:
    often = row("repeat", 30, BLACK, evidence={"draws": 2.0, "crossings": 16.0})
    assert not any(check_rows([row("mle", 20, evidence={"draws": 2.0}), often], stochastic=True))
    as_often = row("repeat", 28, evidence={"draws": 2.0, "crossings": 16.0})
    assert check_rows([as_often, often], stochastic=True)[0][0].startswith("black box beats white box: repeat")


def test_floors_are_held_neither_against_the_mean_image_nor_against_noise() -> None:
    assert kinds(row("nearest", 9, BLACK, evidence={"reads": 1.0}), stochastic=True) == []
    # Few of its images, but each of these as often as it should.
    assert kinds(row(needs=BLACK, evidence={"reads": 1.1, "draws": 2.0}), stochastic=True) == []


def test_reasons_in_the_images_reach_every_row_that_uses_them() -> None:
    for kind, raised, sound in (("overlap", (1, 1), (0, 1)), ("near-duplicates", (0, 2), (0, 1))):
        assert [why.partition(":")[0] for why in check_data(*raised, 100)][-1] == kind
        assert kind not in str(check_data(*sound, 100))
    found = check_rows([row("mean", 12, ["AUX"]), row(needs=["WEIGHTS"])], stochastic=False, data=["overlap: 1"])
    assert found == [["overlap: 1"], []]


def test_a_worst_case_takes_over_what_could_make_it_wrong() -> None:
    doubted = row(unreliable=["below the floor: x", "not finite: y", "black box beats white box: z"])
    assert inherited([doubted, row(unreliable=["not finite: y"])]) == ["not finite: y"]


def test_label_rows_are_checked_too() -> None:
    def label(needs: list[str] = BLACK, **more: Any) -> LabelRow:
        fixed: dict[str, Any] = {
            "cut": "c", "defense": "none", "codec": "raw", "attack": "attribute", "attribute": "task", "classes": 2,
            "n": 100, "accuracy": 0.9, "chance": 0.5, "seconds": 1.0,
        }  # fmt: skip
        return LabelRow(needs=needs, **(fixed | more))

    assert check_labels(label(evidence={"reads": 1.0}), stochastic=False) == []
    for kind, bad in (
        ("not finite", label(evidence={"finite": 0.0})),
        ("few images", label(n=19)),
        ("unaveraged noise", label(evidence={"reads": 1.0})),
        ("unaveraged noise", label(WHITE, evidence={"draws": 1.0})),
    ):
        assert [why.partition(":")[0] for why in check_labels(bad, stochastic=True)] == [kind]


def test_copies_and_near_duplicates_are_counted() -> None:
    draws = np.random.default_rng(0)
    aux = draws.integers(0, 256, (50, 3, 16, 16), dtype=np.uint8)
    private = draws.integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
    assert (copies(private, aux), near_duplicates(private, aux)) == (0, 0)
    private[0] = aux[7]
    private[1] = (aux[8] * 0.8 + 20).astype(np.uint8)
    private[2] = np.clip(aux[9] + draws.normal(0, 5, aux[9].shape), 0, 255).astype(np.uint8)
    private[3], aux[10] = 99, 99
    assert (copies(private, aux), near_duplicates(private, aux)) == (2, 3)


def pictures(count: int, seed: int, channels: int = 3) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """(count, channels, 32, 32): blobs and an edge, with detail of a few pixels."""
    draws = np.random.default_rng(seed)
    coarse = draws.random((count, channels, 8, 8)).repeat(4, 2).repeat(4, 3)
    at = draws.integers(6, 26, (count, 1, 1, 1))
    edge = np.arange(32)[None, None, None] > at
    return ((0.7 * coarse + 0.3 * edge) * 255).astype(np.uint8)


CHANGED: dict[str, Any] = {
    "mirrored": lambda x: x[..., ::-1],
    "moved": lambda x: np.roll(x, (2, -1), (1, 2)),
    "mirrored and moved": lambda x: np.roll(x[..., ::-1], 1, 1),
    "blurred": lambda x: (x / 2 + np.roll(x, 1, 2) / 4 + np.roll(x, -1, 2) / 4).astype(np.uint8),
    "in another light": lambda x: (0.6 * x + 60).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGED)
def test_an_image_of_the_adversarys_is_found_however_it_was_changed(change: str) -> None:
    aux, private = pictures(120, 0), pictures(12, 1)
    assert near_duplicates(private, aux) == 0
    private[5] = CHANGED[change](aux[40])
    assert near_duplicates(private, aux) == 1


def test_images_that_show_nothing_are_no_duplicates() -> None:
    aux, private = pictures(60, 0, 1), pictures(10, 1, 1)
    aux[:5], private[:5] = 30, 200
    assert near_duplicates(private, aux) == 0


def test_few_own_images_are_said_unless_so_few_were_asked_for(trained: Trained) -> None:
    assert [why.partition(":")[0] for why in check_data(0, 0, 100, 199)] == ["few own images"]
    assert check_data(0, 0, 100, 200) == check_data(0, 0, 100, None) == []


def test_a_net_that_learned_next_to_nothing_is_said() -> None:
    (why,) = check_net(Accuracy.of(120, 1000), 0.1)
    assert why == "barely trained: the net's task accuracy is 12.0% where chance is 10.0%"
    assert check_net(Accuracy.of(300, 1000), 0.1) == []
    assert check_net(Accuracy.of(8, 10), 0.5) == [], "few images tell little"
    found = check_rows([row("mean", 12, ["AUX"]), row()], stochastic=False, net=[why])
    assert found == [[], [why]], "floors look at no net"


def test_a_tail_that_floors_carry_is_said() -> None:
    def of(attacks: float, floors: float) -> dict[str, Score]:
        both = {"attacks": attacks, "floors": floors}
        return {k: Score(mean=v - 5, worst=v, unit="dB", higher_leaks=True, n=100) for k, v in both.items()}

    (why,) = check_tail(of(29.6, 35.3), "psnr")
    assert why == "floor in the tail: the worst 5 % are 35.3 dB by the floors and 29.6 dB by the attacks"
    assert check_tail(of(29.6, 30.5), "psnr") == []
    assert check_tail(of(35.3, 29.6), "psnr") == []
    assert check_tail({"floors": of(1, 9)["floors"]}, "psnr") == []


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("attack", "defense", "raised"),
    [
        ("told", "none", None),
        ("told:gradient=0.5", "none", "zero gradients"),
        ("told:gain=0.5", "none", "under-trained"),
        ("told:gap=5", "none", "over-fitted"),
        ("told:gain=inf", "none", "not finite"),
        ("told:draws=1", "noise", "unaveraged noise"),
        ("told:draws=2", "noise", None),
        ("reading:times=1", "noise", "unaveraged noise"),
        ("reading:times=2", "noise", None),
        ("literal", "none", "scale dependent"),
        ("grey:level=1.0", "none", "below the floor"),
        ("broken", "none", "not finite"),
    ],
)
def test_an_audit_raises_what_an_attack_gives_cause_for(
    trained: Trained, attack: str, defense: str, raised: str | None
) -> None:
    subject = Subject.of_split(trained.protected("relu3", defense, "raw"), model="small", weights="test")
    card = audit(subject, trained.data, suite=custom_suite([attack]), n=60, samples=0).card
    name = attack.partition(":")[0]
    (tested,) = (r for r in card.rows if r.attack == name and r.defense.startswith(defense))
    found = [why.partition(":")[0] for why in tested.unreliable]
    assert raised in found if raised else not found
    # Attacks that are no better than the mean image leave the tail to the nearest one.
    assert any(r.unreliable for r in card.rows if r.role is not Role.WORST) == bool(raised)


def test_suites_name_real_attacks() -> None:
    assert list(SUITES) == ["smoke", "standard", "strong"]
    for suite in SUITES.values():
        for spec in (*FLOORS, *suite.attacks, *suite.fallback, *suite.stochastic):
            assert ATTACKS.build(spec).name == spec.partition(":")[0]
    assert custom_suite(["mle"]).label == "custom"
    with pytest.raises(UnknownNameError, match="Did you mean 'smoke'"):
        find_suite("smok")


def test_suites_choose_by_adversary_and_defence() -> None:
    suite = Suite("s", "1", ("mle",), 10, "", fallback=("shadow",), stochastic=("repeat",))
    assert suite.specs(PRESETS["white-box"], stochastic=False) == [*FLOORS, "mle"]
    assert suite.specs(PRESETS["black-box"], stochastic=True) == [*FLOORS, "mle", "repeat"]
    told = Suite("s", "2", ("mle",), 10, "", stochastic=("repeat",), lawful=("law",))
    assert told.specs(PRESETS["white-box"], stochastic=True, lawful=True) == [*FLOORS, "mle", "repeat", "law"]
    assert told.specs(PRESETS["white-box"], stochastic=False) == [*FLOORS, "mle"]
    assert suite.specs(PRESETS["query-free"], stochastic=False) == [*FLOORS, "mle", "shadow"]
    assert custom_suite(["mle", "mean"]).specs(PRESETS["white-box"], stochastic=True) == [*FLOORS, "mle"]
