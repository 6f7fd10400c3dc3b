"""Files that are no pictures, or not whole, or dangerous."""

import os
import subprocess
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from splitveil.core.errors import DataError
from splitveil.wire.pictures import (
    MOST_PIXELS,
    BrokenPictureError,
    Faults,
    is_grey,
    picture_files,
    read_picture,
    recipe_for,
    stacked,
)

RECIPE = recipe_for((3, 8, 8), source="files")
assert RECIPE is not None


def noise(size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def read(path: Path) -> None:
    assert RECIPE is not None
    read_picture(path, RECIPE)


def test_postscript_under_a_pictures_name_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*words: object, **options: object) -> NoReturn:
        raise AssertionError("a program was started")

    noise().save(tmp_path / "a.eps", "EPS")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    monkeypatch.setattr(subprocess, "check_call", started)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    with Image.open(tmp_path / "a.png") as opened, pytest.raises(AssertionError, match="a program was started"):
        opened.load()
    with pytest.raises(BrokenPictureError, match="no picture that Pillow knows as one of PNG, JPEG"):
        read(tmp_path / "a.png")
    with pytest.raises(BrokenPictureError):
        is_grey(tmp_path / "a.png")


@pytest.mark.parametrize("form", ["ICO", "TGA", "PCX", "SGI", "PDF", "ICNS"])
def test_other_formats_are_not_opened(tmp_path: Path, form: str) -> None:
    noise((32, 32)).save(tmp_path / "a.png", form)
    with pytest.raises(BrokenPictureError, match="no picture that Pillow knows"):
        read(tmp_path / "a.png")


def test_a_bomb_is_one_sentence(tmp_path: Path) -> None:
    side = 20_000
    rows = zlib.compress(bytes(side // 8 + 1) * side)

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(whole)
    with pytest.raises(BrokenPictureError, match=rf"a.png \(more than {MOST_PIXELS:,} pixels\); mend or remove it\."):
        read(tmp_path / "a.png")


def test_pillows_warnings_stay_inside_and_filters_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    before = warnings.filters[:]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        read(tmp_path / "a.png")
    assert told == []
    assert warnings.filters[:] == before


def broken(root: Path) -> dict[str, str]:
    """File name -> why it cannot be read."""
    noise().save(root / "whole.jpg")
    content = (root / "whole.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(content[: len(content) // 2])
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("no picture")
    noise().save(root / "png.png")
    (root / "half.png").write_bytes((root / "png.png").read_bytes()[:700])
    (root / "head.gif").write_bytes(b"GIF89a" + bytes(20))
    (root / "gone.png").symlink_to(root / "nowhere")
    (root / "dir.png").mkdir()
    return {
        "cut.jpg": "truncated", "empty.png": "no picture", "text.png": "no picture", "half.png": "truncated",
        "head.gif": "", "gone.png": "No such file", "dir.png": "no file",
    }  # fmt: skip


def test_each_kind_of_broken_file_is_one_sentence(tmp_path: Path) -> None:
    for name, why in broken(tmp_path).items():
        with pytest.raises(
            BrokenPictureError, match=rf"cannot read the picture .*{name} \(.*{why}.*\); mend or remove"
        ):
            read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_broken(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(BrokenPictureError, match="Permission denied"):
        read(tmp_path / "a.png")


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for suffix in ("png", "jpg", "gif", "tiff", "webp", "bmp", "ppm"):
        noise().save(tmp_path / f"whole.{suffix}")
        content = np.frombuffer((tmp_path / f"whole.{suffix}").read_bytes(), np.uint8)
        for _ in range(40):
            damaged = content.copy()
            damaged[rng.integers(0, min(200, len(damaged)), 4)] = rng.integers(0, 256, 4)
            (tmp_path / f"a.{suffix}").write_bytes(damaged.tobytes())
            with suppress(BrokenPictureError):
                read(tmp_path / f"a.{suffix}")


def test_all_broken_ones_are_named_or_left_out(tmp_path: Path) -> None:
    names = broken(tmp_path)
    paths = [tmp_path / name for name in (*names, "whole.jpg")]
    faults = Faults()
    x, whole = stacked(paths, 3, (8, 8), faults, name="pets")
    assert (x.shape, whole.tolist()) == ((1, 3, 8, 8), [len(names)])
    with pytest.raises(DataError, match=r"cannot read 7 of the 8 pictures of pets: .*--skip-broken\.") as caught:
        faults.settle("pets", len(paths), skip=False)
    assert all(name in str(caught.value) for name in names)
    assert len(faults.settle("pets", len(paths), skip=True)) == 7
    with pytest.raises(DataError, match="cannot read 7 of the 7 pictures"):
        faults.settle("pets", 7, skip=True)


def test_of_very_many_broken_ones_twenty_are_named(tmp_path: Path) -> None:
    faults = Faults()
    paths = [tmp_path / f"{i}.png" for i in range(33)]
    stacked(paths, 3, None, faults, name="pets")
    with pytest.raises(DataError, match=r"cannot read 33 of the 40 .* and 13 more; mend or remove them"):
        faults.settle("pets", 40, skip=False)


def test_hidden_files_and_folders_are_no_pictures(tmp_path: Path) -> None:
    for name in ("b/c.JPG", "a.png", ".hidden.png", ".ipynb_checkpoints/d.png", "b/.x/e.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dir.png").mkdir()
    assert [str(p.relative_to(tmp_path)) for p in picture_files(tmp_path)] == ["a.png", "b/c.JPG"]
