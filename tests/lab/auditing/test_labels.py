"""Label attacks, repeated crossings and what else an audit hands to its attacks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from splitveil.lab.attacks.view import PRESETS
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.data import Dataset, Images
from splitveil.lab.data.base import Array

from .conftest import Trained
from .fakes import Averaging

pytestmark = pytest.mark.usefixtures("fakes")


def with_attribute(data: Dataset) -> Dataset:
    """Is the upper half brighter than the lower one; unknown for every tenth test image."""

    def upper(x: Array) -> Array:
        brighter: Array = x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))
        return brighter.astype(np.int64)

    train, test = upper(data.train.x), upper(data.test.x)
    test[::10] = -1
    return replace(
        data,
        train=Images(data.train.x, data.train.y, {"upper": train}),
        test=Images(data.test.x, data.test.y, {"upper": test}),
    )


def test_label_attacks_run_for_the_task_and_every_attribute(trained: Trained) -> None:
    data = with_attribute(trained.data)
    found = audit(trained.subject("relu1", "relu3"), data, suite=custom_suite(["centroid"]), n=60)
    rows = found.card.inferences
    assert [(r.cut, r.attribute) for r in rows] == [(c, a) for c in ("relu1", "relu3") for a in ("task", "upper")]
    for r, hits in zip(rows, found.hits, strict=True):
        assert r.accuracy == pytest.approx(hits.float().mean().item())
        assert r.accuracy_interval is not None
        assert r.chance + 0.1 < r.accuracy_interval[0] < r.accuracy < r.accuracy_interval[1]
    task, upper = rows[:2]
    assert (task.classes, task.n) == (10, 60)
    assert upper.classes == 2
    assert 40 < upper.n < 60, "images whose label is unknown do not count"
    assert upper.chance >= 0.5
    assert not found.card.rows[-1].attack.startswith("centroid")


def test_labels_that_the_adversary_does_not_have_are_not_attacked(trained: Trained, foreign: Dataset) -> None:
    others = Dataset("others", foreign.train, foreign.test, tuple("abcdefghij"))
    found = audit(
        trained.subject("relu3"), with_attribute(trained.data), aux=others, suite=custom_suite(["centroid"]), n=30
    )
    assert found.card.inferences == []


def test_label_rows_are_kept_and_found_again(trained: Trained, tmp_path: Path) -> None:
    subject, folder = trained.subject("relu3"), tmp_path / "a"
    first = audit(subject, trained.data, suite=custom_suite(["centroid"]), n=30, out=folder).card
    again = audit(subject, trained.data, suite=custom_suite(["centroid"]), n=30, out=folder, resume=True).card
    assert again.inferences == first.inferences
    assert load_file(folder / "scores.safetensors")["label000.hit"].shape == (30,)


def test_attacks_beyond_the_adversary_are_noted_once(trained: Trained) -> None:
    found = audit(
        trained.subject("relu1", "relu3"), trained.data, suite=custom_suite(["centroid"]), n=30,
        knows=PRESETS["query-free"],
    )  # fmt: skip
    assert found.card.inferences == []
    assert found.card.notes.count("centroid was not run: it needs QUERIES as well") == 1


def test_repeated_crossings_are_draws_of_the_same_features(trained: Trained) -> None:
    subject = Subject.of_split(trained.protected("relu3", "noise:sigma=0.5", "raw"), model="small", weights="test")
    audit(subject, trained.data, suite=custom_suite(["averaging"]), n=30, samples=0)
    plain, noisy = Averaging.seen
    assert plain.shape[0] == noisy.shape[0] == 3
    assert torch.equal(plain[0], plain[1])
    apart = (noisy[0] - noisy[1]).norm(dim=1)
    assert torch.allclose(apart.mean(), (noisy[0] - noisy[2]).norm(dim=1).mean(), rtol=0.2)
    assert 0.3 < apart.mean() / plain[0].norm(dim=1).mean() < 1.2, "sigma 0.5 on each side"


def test_fewer_images_for_the_adversary(trained: Trained) -> None:
    found = audit(trained.subject("relu3"), trained.data, suite=custom_suite([]), n=30, aux_n=20)
    assert found.card.aux_n == 20
