"""What attacks share is told beforehand, so that an audit knows who makes it and who waits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.view import Shared, View
from tests.lab.test_placement import SHORT, shortened, view_on
from tests.lab.test_placement import brief as brief

TINY = f"[{SHORT['decoder']}]"


@pytest.mark.parametrize("sigma", [0.0, 0.1], ids=["exact", "noise"])
@pytest.mark.parametrize(
    "name", [*ATTACKS.names(), f"mle:steps=1,start={TINY}", f"repeat:k=2,attack={TINY}", "shadow:steps=2,learn=queries"]
)
def test_every_key_is_told(name: str, sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    attack, asked = shortened(name), set[str]()
    view, known = view_on(torch.device("cpu"), attack.crossings, sigma)
    once, shared = View.once, view.shared

    def noted(self: View, key: str, make: Callable[..., Any]) -> Any:
        if self.shared is shared:
            asked.add(key)
        return once(self, key, make)

    monkeypatch.setattr(View, "once", noted)
    if isinstance(attack, Attack):
        attack(view)
    else:
        assert isinstance(attack, LabelAttack)
        attack(view, known, 2)
    assert asked <= set(attack.shares(stochastic=view.stochastic))


def test_reads_count_once_whoever_was_killed_and_whoever_made_it(tmp_path: Path) -> None:
    decoder = ATTACKS.build("decoder:size=tiny,epochs=2,steps=2")
    assert isinstance(decoder, Attack)

    def run(folder: Path, foreign: frozenset[str] = frozenset()) -> int:
        view, _ = view_on(torch.device("cpu"), 1, 0.1)
        view.shared, view.foreign = Shared(0, folder), foreign
        decoder(view)
        return view.observed

    whole = run(tmp_path / "whole")
    assert whole > 0
    assert run(tmp_path / "whole") == whole, "from the checkpoint of the last epoch"
    assert run(tmp_path / "other", frozenset(decoder.shares(stochastic=True))) == 0
