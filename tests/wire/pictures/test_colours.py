"""Every kind of picture file as grey and as RGB, held against Pillow used by hand or against the values written."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from splitveil.core.records import Picture
from splitveil.wire.pictures import BrokenPictureError, is_grey, read_picture, recipe_for

RNG = np.random.default_rng(0)
W, H = 12, 10


def colours() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (H, W, 3), dtype=np.uint8))


def exactly(channels: int = 3) -> Picture:
    found = recipe_for((channels, H, W), source="files")
    assert found is not None
    return found


def reference(path: Path, channels: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    with warnings.catch_warnings(), Image.open(path) as opened:
        warnings.simplefilter("ignore")
        pixels = np.asarray(ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB"))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


KINDS = [
    ("RGB", "png"), ("RGB", "jpg"), ("RGB", "bmp"), ("RGB", "ppm"), ("RGB", "tiff"), ("RGB", "webp"), ("L", "png"),
    ("L", "jpg"), ("L", "pgm"), ("L", "gif"), ("1", "png"), ("1", "tiff"), ("1", "bmp"), ("LA", "png"), ("P", "png"),
    ("P", "gif"), ("RGBA", "png"), ("RGBA", "webp"), ("RGBA", "tiff"), ("CMYK", "jpg"), ("CMYK", "tiff"),
    ("YCbCr", "tiff"), ("YCbCr", "jpg"), ("RGBX", "tiff"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "suffix"), KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_modes_become_grey_or_colour_as_pillow_converts_them(
    tmp_path: Path, mode: str, suffix: str, channels: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    colours().convert(mode).save(path)
    found = read_picture(path, exactly(channels))
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, reference(path, channels))


@pytest.mark.parametrize("transparency", [3, bytes(range(256))])
def test_palettes_keep_their_colours_under_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    picture = colours().convert("P")
    picture.save(tmp_path / "a.png", transparency=transparency)
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", exactly()), expected)


def test_adobes_inverted_cmyk_is_not_a_negative(tmp_path: Path) -> None:
    Image.new("RGB", (W, H), (200, 30, 40)).convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    found = read_picture(tmp_path / "a.jpg", exactly()).astype(int)
    assert (abs(found - np.array([200, 30, 40])[:, None, None]) <= 3).all()


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_of_16_bits_grey_the_upper_8_are_taken(tmp_path: Path, suffix: str) -> None:
    values = RNG.integers(0, 1 << 16, (H, W), dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        path.write_bytes(f"P5 {W} {H} 65535\n".encode() + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    assert is_grey(path)
    for channels in (1, 3):
        expected = np.repeat((values >> 8).astype(np.uint8)[None], channels, axis=0)
        np.testing.assert_array_equal(read_picture(path, exactly(channels)), expected)


def test_deep_tiffs_know_their_white(tmp_path: Path) -> None:
    values = RNG.integers(0, 1 << 16, (H, W), dtype=np.uint16)
    for photometric, expected in ((1, values >> 8), (0, 255 - (values >> 8))):
        Image.fromarray(values).save(tmp_path / "a.tiff", tiffinfo={262: photometric})
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tiff", exactly(1))[0], expected)


def test_twelve_bits_of_a_tiff_are_not_nearly_black(tmp_path: Path) -> None:
    values = RNG.integers(0, 1 << 12, (H, W), dtype=np.uint16)
    high, low = values[:, ::2], values[:, 1::2]
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], 2).astype(np.uint8).tobytes()
    tags = [(256, W), (257, H), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, H), (279, len(packed))]
    entries = b"".join(
        tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, value in tags
    )
    directory = len(tags).to_bytes(2, "little") + entries + bytes(4)
    path = tmp_path / "a.tiff"
    path.write_bytes(b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed + directory)
    np.testing.assert_array_equal(read_picture(path, exactly(1))[0], values >> 4)


@pytest.mark.parametrize("kind", ["I", "F", "LAB"])
def test_values_without_an_agreed_white_are_refused_by_one_sentence(tmp_path: Path, kind: str) -> None:
    made = Image.new("LAB", (W, H)) if kind == "LAB" else colours().convert("L").convert(kind)
    made.save(tmp_path / "a.tiff")
    with pytest.raises(BrokenPictureError, match=rf"cannot read the picture .*a.tiff \(mode {kind}, expected 8 or 16"):
        read_picture(tmp_path / "a.tiff", exactly())


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_every_orientation_is_turned_upright(tmp_path: Path, turn: int, suffix: str) -> None:
    mark = Image.Exif()
    mark[0x0112] = turn
    path = tmp_path / f"a.{suffix}"
    colours().resize((16, 10)).save(path, exif=mark)
    wanted = (3, 16, 10) if turn > 4 else (3, 10, 16)
    recipe = recipe_for(wanted, source="files")
    assert recipe is not None
    found = read_picture(path, recipe)
    np.testing.assert_array_equal(found, reference(path, 3))


def test_an_exif_block_that_cannot_be_read_turns_nothing(tmp_path: Path) -> None:
    colours().save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\xff\xff\xff\xff")
    assert read_picture(tmp_path / "a.png", exactly()).shape == (3, H, W)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_several_frames_the_first_is_read(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (W, H), (250, 0, 0)), Image.new("RGB", (W, H), (0, 250, 0))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second], lossless=True)
    found = read_picture(tmp_path / f"a.{suffix}", exactly())
    assert (found[:, 0, 0] == (250, 0, 0)).all()


def test_the_first_of_a_cameras_several_jpegs_is_read(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (W, H), (250, 0, 0)), Image.new("RGB", (W, H), (0, 250, 0))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg", exactly()), reference(tmp_path / "a.jpg", 3))
