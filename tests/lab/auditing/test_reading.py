"""A plate reader beside an audit: what it adds to a row, from which images it learns, and what it leaves alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.cli.audit import run as command
from splitveil.core.errors import InputError
from splitveil.core.records import Card
from splitveil.lab.auditing import Audit, Subject, audit, reading
from splitveil.lab.auditing.reading import Lesson, Reading
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.cut import trace
from splitveil.lab.data import Dataset, Images, load_data
from splitveil.lab.metrics.plates import PlateReader, train_reader
from splitveil.lab.store import Results

from .fakes import Grey

pytestmark = pytest.mark.usefixtures("fakes")

NAMES = ("plate1", "plate2", "plate3", "plate4", "plate_x", "plate_y")


class Pixels(PlateReader):
    """Reads the digits that the first four pixels hold, and never a plate that begins with 9."""

    def read(self, images: Tensor) -> Tensor:
        found = (images[:, 0, 0, :4] * 10).round().long()
        found[found[:, 0] == 9] = 0
        return found


def pictures(n: int, seed: int) -> Images:
    """Noise of 8x8 whose first four pixels hold the digits of a plate; every fourth shows none."""
    rng = np.random.default_rng(seed)
    x, plates = rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8), rng.integers(0, 10, (n, 4))
    x[:, 0, 0, :4] = np.round(plates * 25.5)
    values = np.concatenate([plates, np.full((n, 2), 3)], 1)
    values[::4] = -1
    return Images(x, np.arange(n) % 2, dict(zip(NAMES, values.T.astype(np.int64), strict=True)))


@pytest.fixture(scope="module")
def cars() -> Dataset:
    return Dataset("cars", pictures(80, 0), pictures(60, 1), ("a", "b"))


@pytest.fixture(scope="module")
def subject() -> Subject:
    first = nn.Conv2d(3, 3, 1, bias=False)
    first.weight.data = torch.eye(3)[:, :, None, None]
    net = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(192, 2))
    return Subject.of_model(trace(net.eval(), torch.zeros(2, 3, 8, 8)), ["1"], model="net", weights="test")


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What readers were trained on; none is trained."""
    seen: list[Tensor] = []

    def trained(x: Tensor, plates: Tensor, centres: Tensor, *, seed: int) -> PlateReader:
        torch.manual_seed(seed)
        assert plates.shape == (len(x), 4)
        assert centres.shape == (len(x), 2)
        seen.append(x)
        return Pixels()

    monkeypatch.setattr(reading, "train_reader", trained)
    monkeypatch.setattr(reading, "PlateReader", Pixels)
    return seen


def run(subject: Subject, data: Dataset, attacks: list[str], **more: Any) -> Audit:
    return audit(subject, data, suite=custom_suite(attacks), n=30, **more)


def test_what_can_be_read_of_a_perfect_guess_and_of_a_grey_one(
    subject: Subject, cars: Dataset, lessons: list[Tensor]
) -> None:
    found = run(subject, cars, ["linear", "grey"], plates=cars)
    rows = {r.attack: r.extra for r in found.card.rows}
    assert all({"plates", "plate_characters"} == set(extra) for extra in rows.values())
    assert rows["linear"]["plates"].mean == rows["linear"]["plate_characters"].mean == 1
    assert rows["grey"]["plates"].mean == 0
    assert rows["grey"]["plate_characters"].mean < 0.3
    assert all(e.higher_leaks and e.unit == "1" for e in rows["grey"].values())
    private = cars.test.take(np.random.default_rng([0, 0]).permutation(60)[:30])
    readable = int(((private.attributes["plate1"] >= 0) & (private.attributes["plate1"] != 9)).sum())
    visible = int((private.attributes["plate1"] >= 0).sum())
    assert rows["linear"]["plates"].n == readable < visible < 30
    (note,) = (n for n in found.card.notes if n.startswith("plate reader"))
    assert f"reads {readable} of the {visible} plates" in note
    assert "by heart" not in note, "no private plate is one of the training part"
    assert Card.from_json(found.card.to_json()) == found.card


def test_characters_count_one_by_one(cars: Dataset) -> None:
    said = Reading(Pixels(), Lesson.of(cars, cars.test))
    x = torch.from_numpy(cars.test.x).float() / 255
    guess = x.clone()
    guess[:, 0, 0, 0] = (guess[:, 0, 0, 0] + 0.3) % 0.9
    scores = said.scores(guess)
    known = torch.zeros(len(x), dtype=torch.bool)
    known[said.places] = True
    assert (scores["plates"][known] == 0).all()
    assert (scores["plate_characters"][known] == 0.75).all()
    assert all(values[~known].isnan().all() for values in scores.values())


def test_it_learns_from_the_training_part_and_never_from_a_private_image(
    subject: Subject, cars: Dataset, lessons: list[Tensor]
) -> None:
    mixed = Dataset("mixed", cars.train.joined(cars.test), cars.test, cars.classes)
    run(subject, mixed, ["grey"], plates=mixed)
    private = {image.tobytes() for image in cars.test.x[np.random.default_rng([0, 0]).permutation(60)[:30]]}
    taught = {image.numpy().tobytes() for image in lessons[0]}
    assert not private & taught
    assert len(taught) > 60, "all others with a plate"
    dark = Lesson.of(cars, cars.test).images
    assert len(dark) == 60
    assert (dark.attributes["plate1"] >= 0).all()


def test_a_reader_is_kept_and_nothing_else_changes(
    subject: Subject, cars: Dataset, lessons: list[Tensor], tmp_path: Path
) -> None:
    plain = run(subject, cars, ["grey", "linear"], cache=tmp_path / "c")
    first = run(subject, cars, ["grey", "linear"], cache=tmp_path / "c", plates=cars, out=tmp_path / "a")
    assert Grey.runs == 2, "what is asked for decides what a unit is"
    again = run(subject, cars, ["grey", "linear"], cache=tmp_path / "c", plates=cars, out=tmp_path / "a", resume=True)
    assert len(lessons) == 1
    assert Grey.runs == 2
    assert again.card.rows == first.card.rows
    for bare, read in zip(plain.card.rows, first.card.rows, strict=True):
        assert (bare.psnr, bare.ssim, bare.mse) == (read.psnr, read.ssim, read.mse)
    assert bool(plain.card.rows[0].extra) is False
    run(subject, cars, ["grey"], cache=tmp_path / "c", plates=cars, seed=1)
    more = Dataset("more", pictures(90, 5), cars.test, cars.classes)
    run(subject, cars, ["grey"], cache=tmp_path / "c", plates=more)
    assert len(lessons) == 3, "another seed or other images are another reader"


def test_a_kept_reader_reads_the_same_and_moves_no_generator(tmp_path: Path) -> None:
    data = load_data("vehicles?n=24&identities=8&size=16")
    lesson = Lesson.of(data, data.test)

    def short(x: Tensor, plates: Tensor, centres: Tensor, *, seed: int) -> PlateReader:
        return train_reader(x, plates, centres, epochs=1, seed=seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "train_reader", short)
        store = Results(folder=tmp_path / "a").store({})
        torch.manual_seed(3)
        one = lesson.taught(store, 0)
        patch.delattr(reading, "train_reader")
        two = lesson.taught(store, 0)
        drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    x = torch.from_numpy(data.test.x).float() / 255
    assert len(list((tmp_path / "a" / "units").glob("plate-reader-*.safetensors"))) == 1
    assert torch.equal(one(x), two(x)), "dropout is off in both"
    assert not any(p.requires_grad for p in two.parameters())


def test_plates_that_it_learned_from_are_told(cars: Dataset) -> None:
    same = Dataset("same", replace(cars.test, x=255 - cars.test.x), cars.test, cars.classes)
    said = Reading(Pixels(), Lesson.of(same, cars.test))
    own = len({tuple(plate) for plate in said.truth.tolist()})
    assert f"{own} of the {own} read here among them: it may know these by heart" in said.note
    assert f"0 of the {own} read here among them" in Reading(Pixels(), Lesson.of(cars, cars.test)).note


def test_mistakes_are_explained_before_anything_runs(
    subject: Subject, cars: Dataset, lessons: list[Tensor], tmp_path: Path
) -> None:
    digits = load_data("digits?n=60")
    with pytest.raises(InputError, match=r"got none in digits.*; use --data vehicles"):
        run(subject, cars, ["grey"], plates=digits, out=tmp_path / "a")
    bare = Dataset("bare", replace(cars.train, attributes={}), replace(cars.test, attributes={}), cars.classes)
    with pytest.raises(InputError, match=r"plate1, .* got none in the private images; use --data vehicles"):
        run(subject, bare, ["grey"], plates=cars, out=tmp_path / "a")
    with pytest.raises(InputError, match=r"expected pictures of \(3, 8, 8\) .* give --plates-from the size"):
        run(subject, cars, ["grey"], plates=load_data("vehicles?n=20&size=16"), out=tmp_path / "a")
    hidden = {name: np.full_like(values, -1) for name, values in cars.train.attributes.items()}
    blind = Dataset("blind", replace(cars.train, attributes=hidden), cars.test, cars.classes)
    with pytest.raises(InputError, match=r"got 0 in the training part of blind and \d+ private"):
        run(subject, cars, ["grey"], plates=blind, out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    nines = {name: np.where(values >= 0, 9, -1) for name, values in cars.test.attributes.items()}
    nines |= {name: cars.test.attributes[name] for name in ("plate_x", "plate_y")}
    worn = Dataset("worn", cars.train, replace(cars.test, attributes=nines), cars.classes)
    with pytest.raises(InputError, match=r"reads on the clean picture, got none of \d+ .*--plates-from"):
        run(subject, worn, ["grey"], plates=worn)
    assert Grey.runs == 0


def test_the_command_line_says_what_to_learn_from(tmp_path: Path) -> None:
    out, cars = tmp_path / "a", "vehicles?n=40&identities=4&size=16"
    with pytest.raises(InputError, match="got none in digits"):
        command("small", "digits?n=60", out, n=20, suite="smoke", read_plates=True)
    with pytest.raises(InputError, match="got none in digits"):
        command("small", cars, out, n=10, suite="smoke", plates_from="digits?n=60")
    with pytest.raises(InputError, match="give --plates-from the size of --data"):
        command("small", cars, out, n=10, suite="smoke", read_plates=True, plates_from="vehicles?n=40&size=20")
    assert not out.exists()
