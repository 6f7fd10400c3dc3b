"""The picture for a README."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from splitveil.core.errors import InputError
from splitveil.report import samples_picture
from splitveil.report.strip import GAP, LABELS, MARGIN

from .conftest import MakeAudit


@pytest.mark.parametrize(("shape", "side"), [((3, 32, 32), 96), ((1, 8, 8), 96), ((3, 28, 28), 84)])
def test_inputs_and_guesses_lie_beneath_each_other(
    shape: tuple[int, int, int], side: int, make_audit: MakeAudit, tmp_path: Path
) -> None:
    folder = make_audit(shape=shape, cuts=("layer1",), samples=5)
    assert samples_picture(folder, tmp_path / "p.png") == tmp_path / "p.png"
    page, kept = np.asarray(Image.open(tmp_path / "p.png")), load_file(folder / "samples.safetensors")
    x0 = MARGIN + LABELS + 2 * (side + GAP)

    def tile(y: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return page[y : y + side, x0 : x0 + side].transpose(2, 0, 1)

    times = side // shape[1]
    for y, image in (
        (MARGIN, kept["input"][2]),
        (page.shape[0] - MARGIN - side, kept["row004"][2]),
        (page.shape[0] - MARGIN - 2 * side - GAP, kept["row003"][2]),
        (page.shape[0] - MARGIN - 3 * side - 2 * GAP, kept["row000"][2]),
    ):
        expected = np.broadcast_to(image, (3, *shape[1:])).repeat(times, 1).repeat(times, 2)
        assert np.array_equal(tile(y), expected)


def test_without_samples_nothing_is_written(make_audit: MakeAudit, tmp_path: Path) -> None:
    assert samples_picture(make_audit(samples=0), tmp_path / "p.png") is None
    assert not (tmp_path / "p.png").exists()


def test_a_folder_is_no_file(make_audit: MakeAudit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name a file"):
        samples_picture(make_audit(), tmp_path)
