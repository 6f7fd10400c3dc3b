import numpy as np
import pytest
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.data.vehicles.font import COLUMNS, ROWS, inked
from splitveil.lab.metrics.plates import PlateReader, plate_accuracy, train_reader


def painted(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Grey pictures of 32x32 with a plate of ones and eights somewhere: pictures, digits, centres."""
    rng = np.random.default_rng(seed)
    plates, corners = rng.choice([1, 8], (n, 4)), rng.integers(0, [32 - COLUMNS + 1, 32 - ROWS + 1], (n, 2))
    x = rng.integers(60, 90, (n, 3, 32, 32), dtype=np.uint8)
    for picture, ink, (left, top) in zip(x, inked(plates), corners, strict=True):
        picture[:, top : top + ROWS, left : left + COLUMNS] = np.where(ink, 20, 240)
    centres = corners + np.array([COLUMNS // 2, ROWS // 2])
    return torch.from_numpy(x), torch.from_numpy(plates), torch.from_numpy(centres)


class Fixed(PlateReader):
    """Reads the digits that the first four pixels of a picture hold."""

    def read(self, images: Tensor) -> Tensor:
        return (images[:, 0, 0, :4] * 10).round().long()


def written(plates: Tensor) -> Tensor:
    images = torch.zeros(len(plates), 3, 8, 8)
    images[:, 0, 0, :4] = plates / 10
    return images


def test_it_learns_to_find_and_to_read_above_chance() -> None:
    reader = train_reader(*painted(256, 0), epochs=8, lr=4e-3)
    x, truth, centres = painted(100, 1)
    pictures = x.float() / 255
    assert (reader.locate(pictures) - centres).abs().median() <= 3
    assert (reader.read(pictures) == truth).double().mean() > 0.7
    assert not any(p.requires_grad for p in reader.parameters())


def test_training_is_a_function_of_the_seed() -> None:
    x, plates, centres = painted(64, 0)
    one, two, other = (train_reader(x, plates, centres, epochs=1, seed=seed) for seed in (0, 0, 1))
    picture = x.float() / 255
    assert torch.equal(one(picture), two(picture))
    assert not torch.equal(one(picture), other(picture))


def test_what_is_read_stands_around_the_centre() -> None:
    reader = PlateReader().eval()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    far = x.clone()
    far[:, :, :, :20] = 0
    centres = torch.tensor([[44.0, 40.0], [44.0, 40.0]])
    shifted = torch.roll(x, (4, -8), (2, 3))
    assert reader.at(x, centres).shape == (2, 4, 10)
    assert torch.allclose(reader.at(x, centres), reader.at(far, centres))
    assert not torch.allclose(reader.at(x, centres), reader.at(far, centres - 20))
    moved = reader.at(shifted, centres + torch.tensor([-8.0, 4.0]))
    assert torch.allclose(reader.at(x, centres), moved, atol=1e-4)


def test_brightness_and_contrast_do_not_matter() -> None:
    reader = PlateReader().eval()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    centres = torch.full((2, 2), 32.0)
    assert torch.allclose(reader.at(x, centres), reader.at(0.3 * x + 0.2, centres), atol=1e-4)


def test_accuracy_counts_only_plates_that_can_be_read_on_the_image_itself() -> None:
    truth = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9], [0, 1, 2, 3]])
    misread = truth.clone()
    misread[3] = 7
    guessed = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [9, 9, 9, 8], [0, 1, 2, 3]])
    found = plate_accuracy(Fixed(), written(guessed), truth, written(misread))
    assert (found.n, found.clean) == (3, 0.75)
    assert found.exact == pytest.approx(1 / 3)
    assert found.characters == pytest.approx(9 / 12)
    perfect = plate_accuracy(Fixed(), written(truth), truth, written(truth))
    assert (perfect.exact, perfect.characters, perfect.n) == (1, 1, 4)


def test_mistakes_are_explained() -> None:
    x, plates, centres = torch.zeros(2, 3, 16, 16), torch.zeros(2, 4).long(), torch.zeros(2, 2).long()
    with pytest.raises(InputError, match=r"keep images whose plate_visible is 1"):
        train_reader(x, plates - 1, centres)
    with pytest.raises(InputError, match=r"expected plates \(2, 4\) and centres \(2, 2\)"):
        train_reader(x, plates[:1], centres)
    with pytest.raises(InputError, match=r"whose sides 4 divides, got \(2, 1, 16, 16\)"):
        PlateReader().read(x[:, :1])
    with pytest.raises(InputError, match=r"expected a plate that the reader reads"):
        plate_accuracy(Fixed(), x, plates + 1, x)
    with pytest.raises(InputError, match=r"expected guesses like the images"):
        plate_accuracy(Fixed(), x[:1], plates, x)
