import json
import os
from pathlib import Path

import pytest

from splitveil.core.errors import InputError
from splitveil.core.records import SCHEMA_VERSION, Card, Cut, Manifest, Row, Tensor, dumps, write_atomically

CUT = Cut(
    name="layer2", index=5, shape=(32, 16, 16), also=("layer2.1",), bytes_fp32=32768, bytes_u8=8192, edge_macs=10,
    cloud_macs=20, edge_params=3, cloud_params=4, edge_share=1 / 3, edge_peak_bytes=99,
)  # fmt: skip
ROW = Row(
    cut="layer2", defense="none", codec="raw", attack="mle", needs=["WEIGHTS"], n=5, mse=0.1, psnr=10, ssim=0.5,
    psnr_worst5=12, ssim_worst5=0.6, seconds=1.5, unreliable=["few images: 5"],
)  # fmt: skip
CARD = Card(
    model="m", weights="w", data="d", task_accuracy=0.9, threat_model="t", suite="smoke-0", seed=0, hardware="h",
    seconds=2.0, rows=[ROW], cuts=[CUT], accuracies={"a | b | c": 0.5}, versions={"torch": "2"},
)  # fmt: skip
Z = Tensor(name="z", datatype="UINT8", shape=(-1, 32, 16, 16))
MANIFEST = Manifest(
    name="b", model="m", cut=CUT, classes=["x", "y"], image_shape=(3, 32, 32), defense="none", codec="raw", noise=Z,
    input=Z, features=Z, output=Z, contract="abc", files={"edge.onnx": "00"},
)  # fmt: skip


@pytest.mark.parametrize("record", [CUT, ROW, CARD, Z, MANIFEST], ids=lambda r: type(r).__name__)
def test_round_trip(record: Cut | Row | Card | Tensor | Manifest) -> None:
    assert type(record).from_json(record.to_json()) == record


def test_unknown_keys_are_ignored_and_missing_ones_named_together() -> None:
    words = json.loads(ROW.to_json()) | {"from_the_future": 1}
    assert Row.from_json(json.dumps(words)) == ROW
    del words["psnr"], words["n"]
    with pytest.raises(InputError, match=r"n: .*; psnr: .*write it anew"):
        Row.from_json(json.dumps(words))


def test_documents_name_their_schema(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    CARD.save(path)
    assert Card.load(path) == CARD
    path.write_text(CARD.model_copy(update={"schema_version": SCHEMA_VERSION + 1}).to_json())
    with pytest.raises(InputError, match=f"schema {SCHEMA_VERSION + 1}, expected {SCHEMA_VERSION}"):
        Card.load(path)
    with pytest.raises(InputError, match=r"cannot read .*missing.json"):
        Card.load(tmp_path / "missing.json")


def test_a_card_gathers_its_reasons() -> None:
    assert CARD.unreliable == ["layer2 mle: few images: 5"]


def test_writes_are_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_dumps_takes_records_and_refuses_nan() -> None:
    assert json.loads(dumps({"rows": [ROW]}))["rows"][0]["attack"] == "mle"
    with pytest.raises(ValueError, match="JSON"):
        dumps({"x": float("nan")})
