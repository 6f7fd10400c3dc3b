"""A plate reader: how much of a number plate can still be read from a reconstruction."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.images import as_floats
from splitveil.lab.seeds import derive
from splitveil.lab.training import IndexBatches, fit

CHARACTERS, DIGITS = 4, 10
WINDOW = (0.25, 0.53)
"""Height and width of what is looked at around a plate's centre, as shares of the picture."""
SAMPLED = (24, 48)
"""Points of the window, so that plates are read alike at all sizes of picture."""
CELL = 4
"""Pixels, each way, of the cells that a plate is found in."""
JITTER = 0.04
"""Share of the picture by which centres are shifted in training, so that finding need not be exact."""
EPOCHS, RATE, BATCH, CHUNK = 16, 2e-3, 64, 256


class PlateReader(nn.Module):
    """Finds the plate, then reads four digits around it; no normalisation layers, so that bf16 pays.

    A net of its own that has no part in any reconstruction. The finder gives a map over cells of 4 by 4 pixels, whose
    highest one is the plate's centre; the window around it is brought to zero mean and unit spread, as cameras differ.

    Args:
        width: channels of the reader's first convolution.
    """

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        self.finder = nn.Sequential(
            nn.PixelUnshuffle(CELL), nn.Conv2d(3 * CELL**2, 32, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 1, 3, 1, 1),
        )  # fmt: skip
        rows, columns = SAMPLED[0] // 8, SAMPLED[1] // 4
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 5, 2, 2), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((2, 1)),
            nn.Flatten(), nn.Linear(2 * width * rows * columns, 8 * width), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(8 * width, CHARACTERS * DIGITS),
        )  # fmt: skip

    def heat(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W) -> (N, H/4 * W/4), logits of where the plate's centre is."""
        found: Tensor = self.finder(x - 0.5).flatten(1)
        return found

    def locate(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W) -> (N, 2), column and row of the likeliest centre, in pixels."""
        cell = self.heat(x).argmax(1)
        wide = x.shape[3] // CELL
        return (torch.stack([cell % wide, cell // wide], 1) + 0.5) * CELL

    def at(self, x: Tensor, centres: Tensor) -> Tensor:
        """Logits (N, 4, 10) of what stands around `centres`: (N, 2), in pixels. x: (N, 3, H, W)."""
        height, width = x.shape[2:]
        down = torch.linspace(-1, 1, SAMPLED[0], device=x.device) * WINDOW[0]
        across = torch.linspace(-1, 1, SAMPLED[1], device=x.device) * WINDOW[1]
        middle = 2 * centres / torch.tensor([width, height], device=x.device) - 1
        n = len(x)
        columns = (middle[:, 0, None, None] + across[None, None]).expand(n, *SAMPLED)
        rows = (middle[:, 1, None, None] + down[None, :, None]).expand(n, *SAMPLED)
        seen = F.grid_sample(x, torch.stack([columns, rows], 3), padding_mode="border", align_corners=False)
        seen = seen - seen.mean((1, 2, 3), keepdim=True)
        seen = seen / seen.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
        logits: Tensor = self.net(seen).unflatten(1, (CHARACTERS, DIGITS))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W) in [0, 1], 4 divides H and W -> logits (N, 4, 10), read where the plate was found."""
        return self.at(x, self.locate(x))

    def read(self, images: Tensor) -> Tensor:
        """The likeliest digits (N, 4) int64. images: (N, 3, H, W) in [0, 1].

        Raises:
            InputError: images that are not in colour, or whose sides 4 does not divide.
        """
        _check(images)
        with Accelerator.chosen().used(self) as where, torch.inference_mode():
            return torch.cat([self(part.to(where.device)).argmax(2).to(images.device) for part in images.split(CHUNK)])


class _Lesson(nn.Module):
    """Cross entropy of the place and of the digits at the true place, shifted a little."""

    def __init__(self, reader: PlateReader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, x: Tensor, plates: Tensor, centres: Tensor, shifts: Tensor) -> Tensor:
        height, width = x.shape[2:]
        cell = (centres[:, 1] // CELL) * (width // CELL) + centres[:, 0] // CELL
        place = F.cross_entropy(self.reader.heat(x).float(), cell)
        off = shifts * torch.tensor([width, height], device=x.device) * JITTER
        logits = self.reader.at(x, centres + 0.5 + off).float()
        return place + F.cross_entropy(logits.flatten(0, 1), plates.flatten())


def train_reader(
    x: Tensor, plates: Tensor, centres: Tensor, *, epochs: int = EPOCHS, lr: float = RATE, seed: int = 0
) -> PlateReader:
    """A reader of clean images; give it many different plates, or it learns these by heart.

    Args:
        x: (M, 3, H, W) uint8, images with a visible plate, none of which is private.
        plates: (M, 4) int64, their digits.
        centres: (M, 2) int64, column and row of the plates' centres.
        epochs: passes over them.
        lr: peak learning rate.
        seed: of initialisation, shuffling and shifts.

    Raises:
        InputError: shapes that do not fit, or plates that are not visible.
        TrainingError: training diverged.
    """
    _check(x)
    if plates.shape != (len(x), CHARACTERS) or centres.shape != (len(x), 2) or not len(x):
        raise InputError(
            f"expected plates ({len(x)}, 4) and centres ({len(x)}, 2), got {tuple(plates.shape)} and "
            f"{tuple(centres.shape)}; give one of each an image."
        )
    if plates.min() < 0 or plates.max() >= DIGITS or centres.min() < 0 or centres.max() >= min(x.shape[2:]):
        raise InputError("expected visible plates with digits from 0 to 9; keep images whose plate_visible is 1.")
    torch.manual_seed(derive(seed, "plate reader"))
    device = Accelerator.chosen().device
    lesson = _Lesson(PlateReader()).to(device)
    x, plates, centres = x.to(device), plates.to(device), centres.to(device)

    def read(index: Tensor, draws: torch.Generator) -> tuple[Tensor, ...]:
        shifts = 2 * torch.rand(len(index), 2, generator=draws) - 1
        return as_floats(x[index]), plates[index], centres[index], shifts

    fit(lesson, IndexBatches(len(x), BATCH, read), epochs=epochs, lr=lr, seed=seed, what="plate reader")
    return lesson.reader.cpu().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Legibility:
    """What a reader got out of guesses.

    Attributes:
        exact: share of plates read without a mistake: PA by a plate reader (our reading of PriPro's PA).
        characters: share of digits read right; chance is 0.1.
        n: plates that it reads without a mistake on the clean images; the shares are of these.
        clean: their share of all plates.
    """

    exact: float
    characters: float
    n: int
    clean: float


def plate_accuracy(reader: PlateReader, guesses: Tensor, truth: Tensor, clean: Tensor) -> Legibility:
    """How well `reader` reads plates in guesses, where it can read them in the images themselves.

    Args:
        reader: trained on images that are not private.
        guesses: (N, 3, H, W) in [0, 1], of images whose plate is visible.
        truth: (N, 4) int64, the digits.
        clean: (N, 3, H, W) in [0, 1], the images.

    Raises:
        InputError: shapes that do not fit, or no plate that it reads on the images themselves.
    """
    if guesses.shape != clean.shape or truth.shape != (len(clean), CHARACTERS):
        raise InputError(
            f"expected guesses like the images and digits (N, 4), got {tuple(guesses.shape)}, {tuple(clean.shape)} and "
            f"{tuple(truth.shape)}; give one of each a plate."
        )
    known = (reader.read(clean) == truth).all(1)
    if not known.any():
        raise InputError("expected a plate that the reader reads on the clean image, got none; train it for longer.")
    right = (reader.read(guesses[known]) == truth[known]).double()
    n = int(known.sum())
    return Legibility(right.prod(1).mean().item(), right.mean().item(), n, n / len(known))


def _check(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % CELL or x.shape[3] % CELL:
        raise InputError(
            f"expected colour images (N, 3, H, W) whose sides 4 divides, got {tuple(x.shape)}; use size=64."
        )
