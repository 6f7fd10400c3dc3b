"""benchmarks/gpu: what it measures on the device that it is given, its page, and one sentence where there is no GPU."""

from pathlib import Path

import pytest
import torch
from benchmarks import gpu
from benchmarks.page import Page

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.data import load_data
from splitveil.lab.defenses import DEFENSES


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page("gpu", tmp_path)


def test_without_a_gpu_it_is_one_sentence(
    page: Page, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("sys.argv", ["gpu", "--out", str(page.folder)])
    with pytest.raises(InputError, match=r"^expected a GPU for --accelerator cuda, got "):
        gpu.main()
    assert not capsys.readouterr().out
    assert not list(page.folder.iterdir())


def test_everything_of_the_tables_is_asked_for_and_what_was_not_reached_is_blank(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data("digits?size=16&n=60")
    monkeypatch.setattr(gpu, "EPOCHS", 1)
    names = [name for name, _ in (*gpu.trainings(data), *gpu.attacks(data, 8))]
    assert len(names) == len(set(names)) == len(DEFENSES.names()) + len(ATTACKS.names())
    assert all(repr(ATTACKS.build(f"{name}:{options}")) for name, options in gpu.OPTIONS.items())
    monkeypatch.setattr(gpu, "trainings", lambda data, made=gpu.trainings: list(made(data))[:1])
    monkeypatch.setattr(gpu, "attacks", lambda data, n, made=gpu.attacks: [*made(data, n)][:1])
    cpu = Accelerator(torch.device("cpu"), "cpu")
    gpu.measure(page, data, [cpu], 5, private=8)
    other = {f"cuda {n.removeprefix('cpu ')}": r for n, r in page.archive.all(gpu.Timed).items() if "train" in n}
    page.archive.put({n: r.model_copy(update={"device": "cuda:0", "seconds": r.seconds / 4}) for n, r in other.items()})
    lines = gpu.text(page, "digits").splitlines()
    trained, attacked = (next(line for line in lines if line.startswith(f"| {what}")) for what in ("train", "attack"))
    assert " | 4.0 | " in trained
    assert attacked.startswith("| attack mean |  | ")
    gpu.measure(page, data, [cpu], 0.0)
    assert len(page.archive.all(gpu.Timed)) == 3
