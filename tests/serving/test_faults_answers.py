"""Answers and wire of ``python -m benchmarks.serving_faults``, and the page that it writes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.serving_faults import text

from tests.faults import answers, crossing
from tests.faults.finding import Finding, Findings


def test_answers_are_the_local_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "CODECS_TRIED", ("raw", "uniform:bits=6"))
    found = answers.compare_answers(tmp_path)
    assert found.failures == ()
    assert [row[1] for row in found.rows] == ["8 of 8"] * 2


def test_the_bound_is_one(tmp_path: Path) -> None:
    """No error of features moves a logit by more, and one nearly does through a single linear layer."""
    layer = torch.nn.Linear(16, 3)
    error = 0.01 * torch.sign(layer.weight[layer.weight.abs().sum(1).argmax()])[None].detach()
    with torch.no_grad():
        moved = float((layer(error) - layer(torch.zeros(1, 16))).abs().max())
    assert moved == pytest.approx(0.01 * answers.amplified(layer), rel=1e-4)


@pytest.mark.parametrize("codec", ["raw", "uniform:bits=8"])
def test_what_crosses_is_what_the_audit_sees(codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossing, "CODECS_TRIED", (codec,))
    found = crossing.read_the_wire(tmp_path)
    assert found.failures == ()
    assert float(found.rows[0][-1]) > 0.9


def test_a_device_without_noise_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossing, "CODECS_TRIED", ("raw",))
    monkeypatch.setattr("splitveil.device.encoding.standard_normal", lambda shape: np.zeros(shape, np.float32))
    failures = " ".join(crossing.read_the_wire(tmp_path).failures)
    for said in ("mean or deviation", "another distribution", "undefended features", "the same draw"):
        assert said in failures


def test_the_page_tells_failures() -> None:
    well = Finding(title="Good", ran="It ran.", columns=("a", "b"), rows=(("1", "2"),))
    ill = Finding(title="Bad", ran="It ran.", failures=("Three answers were wrong.",))
    found = Findings(hardware="here", environment={"numpy": "2"}, seed=0, sections={"soak": ill, "hostile": well})
    page = text(found, "[records](there)")
    assert (
        page.index("## Good")
        < page.index("| 1 | 2 |")
        < page.index("**Passed.** Code: not recorded.")
        < page.index("## Bad")
    )
    assert "**Failed:** Three answers were wrong." in page
    assert "Raw: [records](there)." in page
    assert Findings.from_json(found.to_json()) == found
