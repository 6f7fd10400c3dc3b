from pathlib import Path

import pytest

from splitveil.core.errors import InputError
from splitveil.core.records import Correlation, Criterion, CutNumbers, Number
from splitveil.report.criterion import course, number_text, predicts, render_criterion


def number(value: float | None, leaks: str = "more") -> Number:
    return Number(
        name="mine <b>", family="information", value=value, unit="nats", leaks=leaks, cap=8.3, samples=1000,
        interval=(1.0, 2.0), calibration={"I(x;x)": 6.1, "shuffled": 0.01}, note="a lower bound",
    )  # fmt: skip


def criterion(cuts: int) -> Criterion:
    return Criterion(
        model="net", weights="seed 0", data="digits", seed=0, hardware="this one", seconds=3.0, n=1000,
        cuts=[
            CutNumbers(
                cut=f"layer{k}", defense="none", codec="raw", edge_share=0.1 * k, elements=64,
                numbers=[number(4.0 - k)], errors={"decoder": 0.01 * (k + 1), "strongest": 0.001 * (k + 1)},
            )
            for k in range(cuts)
        ],
        correlations=[
            Correlation(number="mine <b>", attack=a, rho=-1.0 if cuts > 2 else None, chance=0.02, cuts=cuts)
            for a in ("decoder", "strongest")
        ],
        notes=["no certificate: nothing random leaves the device"],
    )  # fmt: skip


def test_every_cut_has_its_page_and_the_best_number_is_named(tmp_path: Path) -> None:
    text = render_criterion(criterion(4), tmp_path / "criterion.html").read_text()
    assert text.count('class="cutpage"') == 4
    assert "mine &lt;b&gt;" in text
    assert "mine <b>" not in text
    assert "rank correlation \N{MINUS SIGN}1.00, beyond chance" in text
    assert "I(x;x) = 6.1; shuffled = 0.01" in text
    assert "no certificate" in text


def test_few_cuts_say_so(tmp_path: Path) -> None:
    assert "fewer than three cuts" in render_criterion(criterion(2), tmp_path / "criterion.html").read_text()


def test_a_number_with_the_wrong_sign_does_not_predict() -> None:
    right = Correlation(number="x", attack="decoder", rho=-0.9, chance=0.0, cuts=9)
    assert predicts(number(1.0), right) is True
    assert predicts(number(1.0, "less"), right) is False
    assert predicts(number(1.0), right.model_copy(update={"rho": None})) is None


def test_numbers_and_courses() -> None:
    texts = [number_text(v) for v in (None, 0.01234, -12.34, 1234567.0)]
    assert texts == ["\N{EN DASH}", "0.0123", "\N{MINUS SIGN}12.3", "1.23e+06"]
    assert course([1.0, None, 2.0]).count("M") == 2
    assert course([1.0]) == ""


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        render_criterion(criterion(3), tmp_path / "file" / "criterion.html")
