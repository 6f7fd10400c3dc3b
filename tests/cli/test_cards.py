"""Cards and summaries as the console shows them."""

import pytest

from splitveil.cli.cards import show_card, show_summary
from splitveil.cli.console import tell_doubts
from splitveil.core.records import Card, LabelRow, Row, Score
from splitveil.lab.auditing.summary import summarise

CHAIN = "chain:of=[label_smoothing:alpha=0.1 + veil:channels=16,pool=2,distillation=1.0,adversarial=0.0,sigma=0.3]"
SIGMA = "[bold]is no markup[/bold], :cat: no picture"


def card(*defenses: str) -> Card:
    return Card(
        model="small", weights="w", data="digits", task_accuracy=0.9, threat_model=f"knows {SIGMA}", suite="smoke",
        seed=0, hardware="h", seconds=1.0, notes=[f"{CHAIN} was not run"],
        accuracies={f"relu2 | {d} | raw": 0.9 for d in defenses},
        rows=[
            Row(
                cut="relu2", defense=d, codec="raw", attack=SIGMA, needs=[], n=9, mse=0.1, psnr=10, ssim=0.5,
                psnr_worst5=11, ssim_worst5=0.5, seconds=1,
                extra={CHAIN: Score(mean=1, unit="1", higher_leaks=True, n=9)},
            )
            for d in defenses
        ],
        inferences=[
            LabelRow(
                cut="relu2", defense=d, codec="raw", attack="attribute", needs=[], attribute=SIGMA, classes=2, n=9,
                accuracy=0.5, chance=0.5, seconds=1,
            )
            for d in defenses
        ],
    )  # fmt: skip


def test_names_are_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show_card(card(CHAIN))
    shown = capsys.readouterr().out
    assert f"relu2, defense {CHAIN}, codec raw: task accuracy 90.00%\n" in shown
    assert f"note: {CHAIN} was not run" in shown
    assert shown.count(SIGMA) == 1 + 1 + 1 + 1, "the threat model, a row, a header and a label"
    show_summary(summarise([card(CHAIN), card(CHAIN)]))
    shown = capsys.readouterr().out
    assert f"relu2, defense {CHAIN}, codec raw: task accuracy 90.00%\n" in shown
    assert shown.count(SIGMA) == 2


def test_a_reason_that_rows_share_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"seed 0: relu2 {attack}: few images: 8" for attack in ("mean", "linear", "mle", "flow", "mean")]
    tell_doubts([*rows, "noise: few test images: 9", "plain"])
    assert capsys.readouterr().err.splitlines() == [
        "do not trust: seed 0: relu2 mean, seed 0: relu2 linear, seed 0: relu2 mle and 1 more: few images: 8",
        "do not trust: noise: few test images: 9",
        "do not trust: plain",
    ]


def test_bare_halves_are_not_called_undefended(capsys: pytest.CaptureFixture[str]) -> None:
    """Cards from before this was told apart have the same rows."""
    show_card(card("none", "siftfunnel"))
    show_summary(summarise([card("none", "siftfunnel")]))
    shown = capsys.readouterr().out
    assert shown.count("relu2, defended halves with nothing between, codec raw: task accuracy") == 2
    assert "defense none" not in shown
    show_card(card("none"))
    assert "relu2, defense none, codec raw" in capsys.readouterr().out
