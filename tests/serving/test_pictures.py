"""Photos at the device: read as the manifest says, whatever their size and kind."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from splitveil.core.errors import BundleError, DataError, MissingExtraError
from splitveil.core.records import Manifest
from splitveil.device import Edge
from splitveil.device.inputs import picture_of, read_inputs
from splitveil.lab.data import load_data
from splitveil.wire.pictures import Faults, frames, recipe_for

from .conftest import Made, running

RNG = np.random.default_rng(0)


def photos(root: Path) -> list[Path]:
    """Two classes of every kind that a folder may hold."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i, size in enumerate([(40, 30), (31, 77), (16, 16), (90, 20)]):
            photo = Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
            photo.save(root / name / f"a{i}.jpg", exif=turned if i == 1 else Image.Exif())
            photo.convert("L").save(root / name / f"b{i}.png")
            photo.convert("P").save(root / name / f"c{i}.gif")
            photo.convert("CMYK").save(root / name / f"d{i}.jpg")
            photo.convert("RGBA").save(root / name / f"e{i}.webp", lossless=True)
            Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(root / name / f"f{i}.png")
    return sorted(path for path in root.rglob("*.*"))


def inputs(manifest: Manifest, *paths: Path) -> list[tuple[str, NDArray[Any]]]:
    faults = Faults()
    found = list(read_inputs(paths, manifest, faults))
    faults.settle("inputs", len(found) + len(faults.found), skip=False)
    return found


@pytest.mark.parametrize("asked", ["size=16", "size=16x12", "size=16&channels=1"])
def test_lab_and_device_read_the_same_bytes(plain: Made, tmp_path: Path, asked: str) -> None:
    paths = photos(tmp_path / "photos")
    data = load_data(f"folder:{tmp_path / 'photos'}?{asked}")
    manifest = plain.bundle.manifest.model_copy(update={"image_shape": data.shape, "picture": data.picture})
    lab = sorted(x.tobytes() for x in np.concatenate([data.train.x, data.test.x]))
    device = inputs(manifest, tmp_path / "photos")
    assert [name for name, _ in device] == [str(path) for path in paths]
    assert sorted(x.tobytes() for _, x in device) == lab
    assert all((x == y).all() for (_, x), path in zip(device, paths, strict=True) for _, y in inputs(manifest, path))


def test_photos_and_pillows_pictures_are_answered(plain: Made, tmp_path: Path) -> None:
    paths = photos(tmp_path)[:5]
    recipe = picture_of(plain.bundle.manifest)
    with running(plain.bundle) as server, Edge(plain.bundle, f"127.0.0.1:{server.port}") as edge:
        answer = edge.answer_pictures(paths)
        x = np.stack([x for _, x in inputs(edge.manifest, *paths)])
        np.testing.assert_allclose(answer.logits, edge.ask(x), rtol=1e-5, atol=1e-5)
        with Image.open(paths[0]) as opened:
            np.testing.assert_allclose(edge.answer_pictures([opened]).logits, answer.logits[:1], rtol=1e-5, atol=1e-5)
        with pytest.raises(DataError, match="at least one picture"):
            edge.answer_pictures([])
        with pytest.raises(DataError, match=r"cannot use the picture \(mode F, expected"):
            edge.answer_pictures([Image.new("F", (9, 9))])
    assert recipe.size == (16, 16)


def test_bundles_from_before_assume_the_recipe_of_their_time(plain: Made, tmp_path: Path) -> None:
    old = plain.bundle.manifest.model_copy(update={"picture": None})
    assert picture_of(old) == recipe_for(old.image_shape)
    with pytest.raises(BundleError, match="use the SplitVeil that wrote the bundle"):
        picture_of(old.model_copy(update={"picture": picture_of(old).model_copy(update={"loader": 9})}))
    with pytest.raises(DataError, match=r"takes 5 channels, which no picture has; give a \.npy array"):
        picture_of(old.model_copy(update={"image_shape": (5, 16, 16)}))


def test_folders_without_pictures_are_told(plain: Made, tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / ".hidden" / "a.png")
    with pytest.raises(DataError, match="holds no pictures"):
        inputs(plain.bundle.manifest, tmp_path)


class Capture:
    """As OpenCV's: three frames, blue, green, red."""

    opened: int | str = -1
    released = False

    def __init__(self, source: int | str) -> None:
        type(self).opened, self.left = source, 3 if source != 7 else 0

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.left -= 1
        frame = np.zeros((20, 30, 3), np.uint8)
        frame[..., 0], frame[..., 2] = 10, 200 + self.left
        return (True, frame) if self.left >= 0 else (False, None)

    def release(self) -> None:
        type(self).released = True


def test_frames_of_a_camera_and_of_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Capture))
    found = list(frames(0, 2))
    assert [frame.getpixel((3, 3)) for frame in found] == [(202, 0, 10), (201, 0, 10)]
    assert (Capture.opened, Capture.released) == (0, True)
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    (tmp_path / "list.mp4").write_bytes(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1\n/etc/passwd\n")
    with pytest.raises(DataError, match=r"list.mp4 is none by its content"):
        list(frames(tmp_path / "list.mp4", 1))
    assert len(list(frames(tmp_path / "a.mp4", 99))) == 3
    assert Capture.opened == str(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="camera 7 gives no frame; check"):
        list(frames(7, 1))
    with pytest.raises(DataError, match="no such file"):
        list(frames(tmp_path / "b.mp4", 1))


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"camera 0 needs OpenCV .*pip install 'splitveil\[camera\]'"):
        list(frames(0, 1))


def test_a_real_film_gives_its_frames(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 24))
    for _ in range(4):
        writer.write(np.full((24, 32, 3), (0, 0, 220), np.uint8))
    writer.release()
    found = list(frames(path, 3))
    assert [frame.size for frame in found] == [(32, 24)] * 3
    red, green, _ = np.asarray(found[0]).reshape(-1, 3).mean(0)
    assert red > 180 > 60 > green
