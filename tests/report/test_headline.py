"""The first sentences."""

from typing import Any

import pytest

from splitveil.core.records import Card, Row
from splitveil.report.configuration import configurations
from splitveil.report.headline import doubts, finding, opening, telling


def row(attack: str, psnr: float, ssim: float, **more: Any) -> Row:
    fields: dict[str, Any] = {
        "cut": "layer1", "defense": "none", "codec": "raw", "needs": [], "n": 10, "mse": 10 ** (-psnr / 10),
        "psnr_worst5": psnr + 1, "ssim_worst5": ssim, "seconds": 1.0,
    }  # fmt: skip
    return Row(attack=attack, psnr=psnr, ssim=ssim, **(fields | more))


def card(*rows: Row, **more: Any) -> Card:
    return Card(
        model="resnet20", weights="w", data="cifar10", task_accuracy=0.921, threat_model="white-box", suite="standard",
        seed=0, hardware="h", seconds=1.0, rows=list(rows), **more,
    )  # fmt: skip


FLOORS = (row("mean", 12.2, 0.10), row("class_mean", 12.0, 0.08), row("nearest", 9.6, 0.06))


def sentence(*rows: Row, alone: bool = True, **more: Any) -> str:
    return str(finding(configurations(card(*rows, **more))[0], alone=alone))


def test_the_strongest_attack_beside_the_highest_floor() -> None:
    found = sentence(*FLOORS, row("decoder", 32.1, 0.98), row("mle", 25, 0.9), row("worst_case:psnr", 40, 0.99))
    assert found == (
        "At layer1 the cloud recovers inputs at 32.1 dB / SSIM 0.98 with decoder "
        "(floor: mean image 12.2 dB / SSIM 0.10)."
    )


def test_each_metric_names_its_own_attack_and_floor() -> None:
    floors = (row("mean", 12.2, 0.10), row("nearest", 11.0, 0.21))
    found = sentence(*floors, row("decoder", 22.0, 0.60), row("mle", 20.0, 0.75))
    assert "at 22.0 dB / SSIM 0.75 with decoder by PSNR, mle by SSIM" in found
    assert "(floors: mean image 12.2 dB, nearest image SSIM 0.21)" in found


def test_an_attack_at_the_floor_recovers_no_more_than_it() -> None:
    assert "no more than the floors: 12.1 dB / SSIM 0.09" in sentence(*FLOORS, row("decoder", 12.1, 0.09))
    assert "the cloud recovers inputs" in sentence(*FLOORS, row("decoder", 12.1, 0.11))


def test_attacks_of_one_name_are_told_apart_by_their_options() -> None:
    found = sentence(
        row("mle", 20, 0.5), row("decoder", 20, 0.5, options="size=a"), row("decoder", 21, 0.6, options="b=1")
    )
    assert "with decoder (b=1)" in found


def test_only_floors() -> None:
    assert sentence(*FLOORS) == "At layer1 no attack was run (floor: mean image 12.2 dB / SSIM 0.10)."


@pytest.mark.parametrize(
    ("defense", "codec", "expected"),
    [
        ("none", "raw", "At layer1, undefended, the cloud"),
        ("noise:sigma=0.5", "raw", "At layer1, defended by noise:sigma=0.5, the cloud"),
        ("none", "uniform:bits=8", "At layer1, undefended, sent as uniform:bits=8, the cloud"),
    ],
)
def test_the_configuration_is_named_where_there_are_others(defense: str, codec: str, expected: str) -> None:
    attack = row("decoder", 20, 0.5, defense=defense, codec=codec)
    found = sentence(attack, alone=False, accuracies={f"layer1 | {defense} | {codec}": 0.9})
    assert found.startswith(expected)
    assert found.endswith("with decoder, task accuracy 90.0 %.")


def test_halves_of_a_defended_split_are_not_called_undefended() -> None:
    """What training did to them is there with nothing between them, too."""
    rows = [row("decoder", 14, 0.5), row("decoder", 14, 0.5, defense="siftfunnel", unreliable=["few images: 9"])]
    bare, own = configurations(card(*rows, row("decoder", 20, 0.5, cut="layer2")))[:2]
    assert bare.label == "defended halves with nothing between · raw"
    assert str(finding(bare, alone=False)).startswith("At layer1, with nothing between the defended halves, the cloud")
    assert str(finding(own, alone=False)).startswith("At layer1, defended by siftfunnel, the cloud")
    elsewhere = configurations(card(*rows, row("decoder", 20, 0.5, cut="layer2")))[2]
    assert elsewhere.label == "undefended · raw", "another cut, where nothing is defended"


def test_opening_keeps_the_card_s_order_where_depths_are_unknown() -> None:
    rows = [row("decoder", 20, 0.5, cut=cut) for cut in ("layer3", "layer1", "layer2")]
    assert opening(card(*rows)) == ("resnet20 on cifar10, task accuracy 92.1 %, attacked at layer3, layer1 and layer2.")


def test_many_configurations_are_told_by_their_ends() -> None:
    few = [row("decoder", 30 - i, 0.5, cut=f"layer{i}", defense=d) for i in range(4) for d in ("none", "noise")]
    assert len(telling(configurations(card(*few)))) == 8
    many = [*few, row("decoder", 31, 0.5, cut="layer9"), row("decoder", 25, 0.5, cut="layer9", defense="noise")]
    told = {(c.cut, c.defense) for c in telling(configurations(card(*many)))}
    assert told == {("layer9", "none"), ("layer3", "none"), ("layer0", "noise"), ("layer9", "noise")}


def test_doubts_gather_rows_by_reason() -> None:
    rows = (
        row("mean", 12, 0.1),
        row("decoder", 20, 0.5, unreliable=["few images: 9 of 20"]),
        row("mle", 20, 0.5, unreliable=["few images: 9 of 20", "novel"]),
        row("decoder", 20, 0.5, cut="layer2", unreliable=["few images: 8 of 20"]),
    )
    found = {d.kind: (d.meaning, d.rows) for d in doubts(card(*rows))}
    few = ("layer1, undefended · raw: decoder, mle (9 of 20)", "layer2, undefended · raw: all rows (8 of 20)")
    assert found == {
        "few images": ("the means and the worst 5 % rest on too few images", few),
        "novel": ("", ("layer1, undefended · raw: mle",)),
    }
    assert doubts(card(*FLOORS)) == []
