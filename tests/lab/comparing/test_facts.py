"""What a finished comparison or plan finds again: for the same question, by the same code, on whatever machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import splitveil
from splitveil.core.records import Comparison
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.trials import Trials
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset
from splitveil.lab.recipe import Recipe

from .conftest import ASKED, Compare

SOURCE = Path(splitveil.__file__).parent

RUN = """
import sys
from pathlib import Path
import numpy as np, torch
import splitveil
from splitveil.lab.auditing import scoring
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.comparing import compare, training
from splitveil.lab.cut import trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.models.loader import load_model
assert str(Path(splitveil.__file__)).startswith(sys.argv[1])
done = []
def noted(module, name):
    real = getattr(module, name)
    def call(*args, **more):
        done.append(f"{name} {args[0].name if name == 'attacked' else args[1].defense}")
        return real(*args, **more)
    return call
training.trained = noted(training, "trained")
from splitveil.lab.comparing import trials
from splitveil.lab.auditing import setting
trials.trained, setting.attacked = training.trained, noted(scoring, "attacked")
digits = load_data("digits")
data = Dataset("digits", digits.train.take(np.arange(320)), digits.test.take(np.arange(150)), digits.classes)
def fresh(seed):
    model = load_model("small", shape=data.shape, classes=10, weights=None).model
    return trace(model, torch.zeros(2, *data.shape)).split("relu2")
compare(
    fresh, data, model="small", weights="seed 0", defenses=["noise:sigma=0.1", "dropout:rate=0.1"],
    out=Path(sys.argv[2]), drops=(90.0,), suite=custom_suite(["linear", "positions:size=small,epochs=1,steps=5"]), n=20,
    seeds=(0,), trials=1, epochs=1, lr=1e-2, resume=True,
)
print("DONE", sorted(done))
"""


@pytest.mark.long
def test_what_a_changed_line_costs_a_finished_comparison(tmp_path: Path) -> None:
    """A copy of the sources is changed line by line, and the same comparison goes on in a new process."""
    package, out = tmp_path / "src" / "splitveil", tmp_path / "c"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}

    def again(*changed: str) -> list[str]:
        for name in changed:
            with (package / name).open("a") as file:
                file.write("\n# another line\n")
        words = [sys.executable, "-c", RUN, str(package), str(out)]
        told = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        found: list[str] = eval(told.stdout.rpartition("DONE ")[2])
        return found

    trained = {"trained dropout:rate=0.1", "trained noise:sigma=0.1,clip=1.0", "trained none"}
    first = again()
    assert trained <= set(first)
    assert first.count("attacked linear") == first.count("attacked positions") == 3
    idle = ("report/page.py", "cli/compare.py", "lab/planning/planner.py", "lab/attacks/flow.py",
            "lab/defenses/cloak.py", "lab/comparing/knobs.py", "lab/auditing/checks.py")  # fmt: skip
    assert again(*idle) == [], "cards are put together anew, of what was found"
    assert again("lab/attacks/positions.py") == ["attacked positions"] * 3
    own = [f"attacked {name}" for name in ("class_mean", "linear", "mean", "nearest", "positions")]
    assert again("lab/defenses/dropout.py") == [*own, "trained dropout:rate=0.1"]


def test_work_of_another_machine_is_used_and_told(
    quick: Compare, compared: tuple[Comparison, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, made = compared
    out = tmp_path / "c"
    shutil.copytree(made, out)
    for name in ("comparing.trials.trained", "comparing.cards.conducted"):
        monkeypatch.setattr(f"splitveil.lab.{name}", None)
    monkeypatch.setattr("splitveil.lab.store.shelf.hardware", lambda: "another processor")
    again = quick(out, *ASKED, resume=True)
    assert again.contenders == first.contenders
    (note,) = [note for note in again.notes if note not in first.notes]
    assert "of the results were found finished, made on" in note


def test_other_halves_and_images_are_other_trainings(
    data: Dataset, fresh: Callable[[int], Split], tmp_path: Path
) -> None:
    def name(data: Dataset = data, seed: int = 0, setting: str = "noise", **more: Any) -> str:
        shop = Trials(tmp_path, fresh, data, replace(Recipe(epochs=1, lr=1e-3), **more))
        return shop.facts(Setting(setting, "raw"), seed).name

    few = Dataset("few", data.train.take(data.train.y.argsort()), data.test, data.classes)
    names = [name(), name(few), name(seed=1), name(setting="noise:sigma=2.0"), name(epochs=2), name(lr=2e-3)]
    assert len(set(names)) == len(names)
    assert name() == names[0]
