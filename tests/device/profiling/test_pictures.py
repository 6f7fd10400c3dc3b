import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from splitveil.core.errors import DataError
from splitveil.device.profiling.pictures import picture_sizes


def smooth(n: int = 6, channels: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 4, 4, channels), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(c.squeeze()).resize((32, 32))).reshape(32, 32, channels) for c in coarse]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_are_those_of_real_files(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[tuple[str, int | None], list[bytes]] = {}
    save = Image.Image.save

    def kept(self: Image.Image, out: io.BytesIO, form: str, **options: Any) -> None:
        save(self, out, form, **options)
        written.setdefault((form, options.get("quality")), []).append(out.getvalue())

    monkeypatch.setattr(Image.Image, "save", kept)
    images = smooth(channels=channels)
    found = {size.form: size for size in picture_sizes(images)}
    assert list(found) == ["png", "jpeg q95", "jpeg q75"]
    for form, key in (("png", ("PNG", None)), ("jpeg q95", ("JPEG", 95)), ("jpeg q75", ("JPEG", 75))):
        sizes = [len(content) for content in written[key]]
        assert (found[form].median, found[form].p95, found[form].n) == (np.median(sizes), max(sizes), 6)
    for image, content in zip(images, written["PNG", None], strict=True):
        decoded = np.asarray(Image.open(io.BytesIO(content)))
        np.testing.assert_array_equal(decoded.reshape(image.shape), image)
    assert found["jpeg q75"].median < found["jpeg q95"].median


def test_noise_does_not_compress() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    flat = np.zeros((3, 32, 32, 3), np.uint8)
    assert picture_sizes(noise)[0].median >= noise[0].size > 10 * picture_sizes(flat)[0].median


def test_bad_input() -> None:
    for images in (
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
    ):
        with pytest.raises(DataError, match="expected uint8 images"):
            picture_sizes(images)
