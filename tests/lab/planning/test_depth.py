"""Curves of a small trained net on real digits, and the numbers whose value is known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import CutError, InputError
from splitveil.core.records.plan import CutCurve, Figure
from splitveil.lab.cut import Traced, trace
from splitveil.lab.data import Dataset, Images, load_data
from splitveil.lab.metrics.clusters import standardised
from splitveil.lab.metrics.geometry import class_radius
from splitveil.lab.planning import depth as module
from splitveil.lab.planning.depth import curves
from splitveil.lab.planning.ridge import linear_error
from splitveil.lab.seeds import generator

NAMES = {
    "rc2", "rc2_relative", "rc2_predicted", "within", "within_shuffled", "rank", "h_x_z", "h_z",
    "elements", "payload", "linear_mse",
}  # fmt: skip


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Sorted(nn.Module):
    """Keeps the image for two steps, then only how bright it is."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = nn.Conv2d(1, 4, 3, padding=1)
        self.act = nn.LeakyReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4, 2)
        self.keep.weight.data.mul_(0.1)[:, :, 1, 1] += 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.flatten(self.pool(self.act(self.keep(x)))))
        return out


def bright_or_dark(n: int = 200) -> Dataset:
    """Two classes that differ by their brightness alone."""
    y = torch.arange(n) % 2
    x = (torch.randint(0, 196, (n, 1, 8, 8), generator=draws(1)) + 60 * y[:, None, None, None]).to(torch.uint8)
    images = Images(x.numpy(), y.numpy().astype(np.int64))
    return Dataset("brightness", images, images, ("dark", "bright"))


def traced(seed: int = 0) -> Traced:
    torch.manual_seed(seed)
    return trace(Sorted().eval(), torch.zeros(2, 1, 8, 8))


def values(found: CutCurve) -> dict[str, float]:
    return {name: f.value for name, f in found.numbers.items()}


def test_curves_show_where_the_image_is_lost_and_the_label_stays() -> None:
    found = curves(traced(), bright_or_dark(), n=200)
    assert [c.cut.name for c in found] == ["keep", "act", "pool"]
    assert all(set(c.numbers) == NAMES and all(f.measured for f in c.numbers.values()) for c in found)
    first, last = values(found[0]), values(found[-1])
    assert first["linear_mse"] < 1e-4
    assert last["linear_mse"] > 100 * first["linear_mse"]
    assert last["rc2"] < 0.2 < 0.6 < first["rc2"]
    assert last["within"] < 0.5 * first["within"]
    assert last["rank"] < 4 < 20 < first["rank"]
    assert last["h_z"] < first["h_z"] / 10
    assert last["h_x_z"] > first["h_x_z"]
    assert (first["elements"], first["payload"]) == (256, 1024)
    for c in found:
        for name in ("rc2", "rc2_relative", "rc2_predicted", "within", "rank", "linear_mse"):
            figure = c.numbers[name]
            assert figure.interval is not None, name
            assert figure.interval[0] <= figure.value <= figure.interval[1], name


def test_numbers_are_those_of_the_features_themselves() -> None:
    model, data = traced(), bright_or_dark()
    found = curves(model, data, n=120, seed=3, cuts=["act"])
    index = torch.randperm(200, generator=generator(3, "curves"))[:120]
    x, y = torch.from_numpy(data.test.x)[index].float() / 255, torch.from_numpy(data.test.y)[index]
    with torch.no_grad():
        z, logits = model.split("act").edge(x), model.split("act")(x)
    radius = class_radius(z, y, 2, resamples=0)
    assert found[0].numbers["rc2"].value == pytest.approx(radius.per_dimension, rel=1e-4)
    assert found[0].numbers["rc2_relative"].value == pytest.approx(radius.relative, rel=1e-4)
    own = class_radius(z, logits.argmax(1), 2, resamples=0)
    assert found[0].numbers["rc2_predicted"].value == pytest.approx(own.per_dimension, rel=1e-4)
    rows = standardised(z).double()
    spectrum = torch.linalg.eigvalsh((rows - rows.mean(0)).T @ (rows - rows.mean(0))).clamp_min(0)
    entropy = float(torch.special.entr(spectrum / spectrum.sum()).sum())
    assert found[0].numbers["rank"].value == pytest.approx(math.exp(entropy), rel=1e-3)


def test_one_forward_pass_serves_all_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = Traced.tap

    def counted(self: Traced, at: list[str]) -> nn.Module:
        tap = real(self, at)
        tap.register_forward_hook(lambda *_: calls.append(len(at)))
        return tap

    monkeypatch.setattr(Traced, "tap", counted)
    monkeypatch.setattr(module, "BATCH", 50)
    curves(traced(), bright_or_dark(), n=200)
    curves(traced(), bright_or_dark(), n=200, cuts=["act"])
    assert calls.count(3) == calls.count(1) == 200 // 50


def test_the_cuts_asked_for_come_once_and_in_order() -> None:
    found = curves(traced(), bright_or_dark(), n=100, cuts=["pool", "keep", "pool"])
    assert [c.cut.name for c in found] == ["keep", "pool"]


def test_features_that_do_not_fit_in_memory_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = curves(traced(), bright_or_dark(), n=120)
    monkeypatch.setattr(module, "memory_budget", lambda: 200 * 1024)
    made: list[Path] = []
    real = np.memmap

    def memmap(path: Path, *args: Any, **options: Any) -> Any:
        made.append(path)
        return real(path, *args, **options)

    monkeypatch.setattr(np, "memmap", memmap)
    assert curves(traced(), bright_or_dark(), n=120) == inside
    assert len(made) == 3
    assert not any(path.exists() for path in made)


def test_where_one_cut_does_not_fit_fewer_images_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_budget", lambda: 110 * 1024)
    assert "110 images" in curves(traced(), bright_or_dark(), n=200, cuts=["act"])[0].numbers["rc2"].source
    monkeypatch.setattr(module, "memory_budget", lambda: 90 * 1024)
    with pytest.raises(InputError, match="got 90 images"):
        curves(traced(), bright_or_dark(), n=200, cuts=["act"])


def test_the_same_seed_gives_the_same_curves_and_no_global_draw() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = traced()
    torch.set_rng_state(before)
    first = curves(model, bright_or_dark(), n=100, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == curves(model, bright_or_dark(), n=100, seed=1)
    assert first != curves(model, bright_or_dark(), n=100, seed=2)


def test_scaling_features_moves_no_number() -> None:
    """z times 10, undone in the cloud."""
    torch.manual_seed(0)
    net = Sorted()
    with torch.no_grad():
        plain = curves(trace(net.eval(), torch.zeros(2, 1, 8, 8)), bright_or_dark(), n=100, cuts=["act"])
        net.keep.weight.mul_(16), net.keep.bias.mul_(16), net.head.weight.div_(16)  # type: ignore[union-attr]
        scaled = curves(trace(net.eval(), torch.zeros(2, 1, 8, 8)), bright_or_dark(), n=100, cuts=["act"])
    for name, value in values(plain[0]).items():
        assert values(scaled[0])[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="expected at least 100 test images"):
        curves(traced(), bright_or_dark(), n=99)
    with pytest.raises(InputError, match="0 cuts; give more of what is missing"):
        curves(traced(), bright_or_dark(), n=100, cuts=[])
    with pytest.raises(CutError, match="nowhere"):
        curves(traced(), bright_or_dark(), n=100, cuts=["nowhere"])


def error(z: Tensor, x: Tensor) -> float:
    rows = standardised(z)
    return linear_error(z, rows, rows @ rows.T, x).mse


def test_a_linear_decoder_undoes_what_is_linear_and_nothing_else() -> None:
    data = load_data("digits")
    x = torch.from_numpy(data.test.x[:300]).float() / 255
    around = float((x[-45:] - x[:210].mean(0)).square().mean())
    mixed = x.flatten(1) @ torch.randn(64, 80, generator=draws(2))
    assert error(mixed, x) < 1e-4
    assert error(nn.functional.conv2d(x, torch.randn(9, 1, 3, 3, generator=draws(3)), padding=1), x) < 1e-4
    assert error(torch.randn(300, 80, generator=draws(4)), x) == pytest.approx(around, rel=0.1)
    assert error(torch.ones(300, 8), x) == pytest.approx(around, rel=1e-4)
    half = mixed.clone()
    half[:, 20:] = 0
    assert 0.05 * around < error(half, x) < 0.9 * around


def test_a_linear_decoder_needs_images() -> None:
    with pytest.raises(InputError, match="expected at least 40 images"):
        linear_error(torch.ones(30, 4), torch.ones(30, 4), torch.ones(30, 30), torch.ones(30, 1, 8, 8))


def test_curves_travel_as_json() -> None:
    found = curves(traced(), bright_or_dark(), n=100, cuts=["pool"])[0]
    again = CutCurve.from_json(found.to_json())
    assert again == found
    assert isinstance(again.numbers["rc2"], Figure)
