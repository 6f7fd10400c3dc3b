"""What may be wrong with an audit folder, and what the user is told."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from splitveil.core.errors import InputError
from splitveil.report.folder import Folder, load_all

from .conftest import MakeAudit


def _no_card(folder: Path) -> None:
    (folder / "card.json").unlink()


def _torn_card(folder: Path) -> None:
    text = (folder / "card.json").read_text()
    (folder / "card.json").write_text(text[: len(text) // 2])


def _no_rows(folder: Path) -> None:
    from splitveil.core.records import Card

    Card.load(folder / "card.json").model_copy(update={"rows": []}).save(folder / "card.json")


def _no_scores(folder: Path) -> None:
    (folder / "scores.safetensors").unlink()


def _row_without_scores(folder: Path) -> None:
    scores = load_file(folder / "scores.safetensors")
    del scores["row005.ssim"]
    save_file(scores, folder / "scores.safetensors")


def _short_scores(folder: Path) -> None:
    scores = load_file(folder / "scores.safetensors")
    scores["row002.psnr"] = scores["row002.psnr"][:-1].copy()
    save_file(scores, folder / "scores.safetensors")


def _torn_samples(folder: Path) -> None:
    content = (folder / "samples.safetensors").read_bytes()
    (folder / "samples.safetensors").write_bytes(content[:-9])


def _float_samples(folder: Path) -> None:
    kept = load_file(folder / "samples.safetensors")
    save_file(kept | {"input": kept["input"].astype(np.float32)}, folder / "samples.safetensors")


def _misshapen_guess(folder: Path) -> None:
    kept = load_file(folder / "samples.safetensors")
    save_file(kept | {"row003": kept["row003"][:, :, :-1].copy()}, folder / "samples.safetensors")


def _too_many_samples(folder: Path) -> None:
    kept = load_file(folder / "samples.safetensors")
    save_file({name: np.repeat(v, 11, 0) for name, v in kept.items()}, folder / "samples.safetensors")


def _other_pictures(folder: Path) -> None:
    kept = load_file(folder / "samples.safetensors")
    save_file(kept | {"row003": kept["row003"][::-1].copy()}, folder / "samples.safetensors")


def _half_of_the_worst(folder: Path) -> None:
    kept = load_file(folder / "samples.safetensors")
    del kept["row003.worst_index"]
    save_file(kept, folder / "samples.safetensors")


def _misshapen_worst(folder: Path) -> None:
    kept = load_file(folder / "samples.safetensors")
    save_file(kept | {"row003.worst": kept["row003.worst"][:-1].copy()}, folder / "samples.safetensors")


def _other_worst(folder: Path) -> None:
    kept = load_file(folder / "samples.safetensors")
    save_file(kept | {"row003.worst": kept["row003.worst"][::-1].copy()}, folder / "samples.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_card, r"no card\.json"),
        (_torn_card, "not a valid card"),
        (_no_rows, "no rows"),
        (_no_scores, r"scores\.safetensors is missing"),
        (_row_without_scores, r"row005\.ssim \(40,\), got none"),
        (_short_scores, r"row002\.psnr \(40,\), got \(39,\)"),
        (_torn_samples, r"samples\.safetensors cannot be read"),
        (_float_samples, "expected uint8 'input'"),
        (_misshapen_guess, "row003 as uint8"),
        (_too_many_samples, "no more samples than scored images, got 44"),
        (_other_pictures, "row003 are not those that were scored"),
        (_half_of_the_worst, r"row003\.worst, row003\.worst_input and row003\.worst_index together"),
        (_misshapen_worst, r"row003\.worst as uint8"),
        (_other_worst, r"row003\.worst are not those that were scored"),
    ],
)
def test_damage_is_one_sentence_with_a_remedy(
    damage: Callable[[Path], None], message: str, make_audit: MakeAudit
) -> None:
    folder = make_audit()
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        Folder.load(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert ";" in text


def test_a_missing_folder_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        Folder.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no audit folder was given"):
        load_all([])


def test_folders_of_one_name_are_told_apart(make_audit: MakeAudit) -> None:
    paths = [make_audit("may/audit", samples=0), make_audit("june/audit", samples=0)]
    assert [f.name for f in load_all(paths)] == ["may/audit", "june/audit"]
    with pytest.raises(InputError, match="given twice"):
        load_all([paths[0], paths[0] / ".." / "audit"])
