"""The pictures of a page and the numbers under them."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from .conftest import BOTH, MakeAudit
from .tags import USE, pixels, written


@pytest.mark.parametrize(
    ("shape", "mode"), [((1, 8, 8), "L"), ((3, 8, 8), "RGB"), ((1, 32, 32), "L"), ((3, 32, 32), "RGB")]
)
def test_pictures_are_the_samples_bit_for_bit(
    shape: tuple[int, int, int], mode: str, make_audit: MakeAudit, tmp_path: Path
) -> None:
    folder = make_audit(shape=shape, cuts=("layer1",), samples=3, old=True)
    _, tags = written(tmp_path, folder)
    kept = load_file(folder / "samples.safetensors")
    expected = [kept["input"], *(kept[f"row{i:03d}"] for i in range(7))]
    assert len(tags.images) == 8 * 3
    for uri, image in zip(tags.images, np.concatenate(expected), strict=True):
        found = pixels(uri)
        assert found.mode == mode
        assert np.array_equal(np.asarray(found), image[0] if mode == "L" else image.transpose(1, 2, 0))


def test_scores_under_a_picture_are_that_image_s_own(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit(cuts=("layer1",), samples=4)
    html, _ = written(tmp_path, folder)
    scores = load_file(folder / "scores.safetensors")
    shown = re.findall(rf'label="decoder for input (\d+)">{USE}<span>([\d.]+)</span><span>([\d.]+)</span>', html)[:4]
    assert [(int(i), p, s) for i, p, s in shown] == [
        (1000 + 7 * i, f"{scores['row003.psnr'][i]:.1f}", f"{scores['row003.ssim'][i]:.2f}") for i in range(4)
    ]


def test_a_large_image_is_shown_reduced(make_audit: MakeAudit, tmp_path: Path) -> None:
    _, tags = written(tmp_path, make_audit(shape=(3, 160, 80), cuts=("layer1",), samples=1, n=4))
    assert {pixels(uri).size for uri in tags.images} == {(64, 128)}


def test_without_samples_there_is_no_picture(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit(samples=0)
    assert not (folder / "samples.safetensors").exists()
    html, tags = written(tmp_path, folder)
    assert tags.count["image"] == tags.count["use"] == 0
    assert "leak most" not in tags.text.partition("The words used here")[0]
    assert "data:image" not in html
    assert "kept no sample images" in tags.text
    assert sorted(tags.rows) == list(range(14))


def test_a_row_without_samples_says_so(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit(cuts=("layer1",), old=True)
    kept = load_file(folder / "samples.safetensors")
    del kept["row006"]
    save_file(kept, folder / "samples.safetensors")
    _, tags = written(tmp_path, folder)
    assert len(tags.images) == 7 * 4
    assert tags.text.count("no sample images kept for this row") == 1


def test_the_images_that_leak_most_stand_above_their_guesses(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit(cuts=("layer1",))
    html, tags = written(tmp_path, folder)
    kept, scores = load_file(folder / "samples.safetensors"), load_file(folder / "scores.safetensors")
    shown = tags.images[8 * 4 :]
    expected = [kept[f"row{row:03d}.worst{part}"][i] for row in (5, 3, 4) for i in range(5) for part in ("_input", "")]
    assert len(shown) == len(expected) == 30
    for uri, image in zip(shown, expected, strict=True):
        assert np.array_equal(np.asarray(pixels(uri)), image.transpose(1, 2, 0))
    pairs = re.findall(rf'by PSNR for input (\d+)">{USE}<span>([\d.]+)</span><span>([\d.]+)</span>', html)[4:]
    top = scores["row005.psnr"].argsort()[::-1][:5]
    assert [(int(i), p, s) for i, p, s in pairs] == [
        (1000 + 7 * i, f"{scores['row005.psnr'][i]:.1f}", f"{scores['row005.ssim'][i]:.2f}") for i in top
    ]
    assert tags.count["details"] == 2
    assert "open" not in {name for tag, name, _ in tags.attributes if tag == "details"}


def test_each_distinct_picture_is_in_the_page_once(make_audit: MakeAudit, tmp_path: Path) -> None:
    _, tags = written(tmp_path, make_audit(configs=BOTH))
    assert len(set(tags.album.values())) == len(tags.album) < len(tags.images)
