import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitveil.core.errors import BundleError, InputError
from splitveil.core.records import Card, Cut, Manifest, Picture, Tensor
from splitveil.wire.bundle import (
    CARD,
    CLOUD,
    EDGE,
    GOLDEN,
    MANIFEST,
    Bundle,
    codec,
    contract_id,
    with_card,
    write_bundle,
)
from splitveil.wire.bundle.opening import Source
from splitveil.wire.codecs.uniform import Uniform

FILES: Mapping[str, bytes] = {EDGE: b"edge", CLOUD: b"cloud", GOLDEN: b"golden"}
CUT = Cut(
    name="layer1", index=1, shape=(2, 4, 4), bytes_fp32=128, bytes_u8=32, edge_macs=1, cloud_macs=1, edge_params=1,
    cloud_params=1, edge_share=0.5, edge_peak_bytes=1,
)  # fmt: skip
SCALED = Uniform(4).calibrate(np.random.default_rng(0).normal(size=(8, 2, 4, 4)))
MADE = Manifest(
    name="tiny",
    model="by hand",
    cut=CUT,
    classes=["a", "b"],
    image_shape=(1, 4, 4),
    defense="none",
    codec=repr(SCALED),
    codec_state=SCALED.state(),
    input=Tensor(name="x", datatype="FP32", shape=(-1, 1, 4, 4)),
    features=Tensor(name="z", datatype="UINT8", shape=(-1, 2, 4, 4)),
    output=Tensor(name="logits", datatype="FP32", shape=(-1, 2)),
    contract="",
)
AUDITED = Card(
    model="tiny", weights="w", data="d", task_accuracy=0.5, threat_model="t", suite="quick", seed=0, hardware="h",
    seconds=1.0, rows=[],
)  # fmt: skip


PICTURE = Picture(
    loader=1, source="files", size=(4, 4), channels=1, orientation="exif", crop="centre", resample="bilinear",
    antialias=True,
)  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "made", MADE, FILES)


def rewrite(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle.folder / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_what_is_written_is_loaded(bundle: Bundle) -> None:
    again = Bundle.load(bundle.folder)
    assert again == bundle
    assert again.manifest.codec_state == SCALED.state()
    assert {name: again.read(name) for name in FILES} == FILES
    assert again.card is None
    assert sorted(p.name for p in bundle.folder.parent.iterdir()) == ["made"]


def test_the_codec_comes_back_with_its_scales(bundle: Bundle) -> None:
    z = np.random.default_rng(1).normal(size=(3, 2, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(codec(bundle.manifest).encode(z), SCALED.encode(z))


def test_a_card_joins_without_changing_the_contract(bundle: Bundle) -> None:
    audited = with_card(bundle, AUDITED)
    own = AUDITED.model_copy(update={"contract": bundle.manifest.contract})
    assert audited.card == own
    assert Bundle.load(bundle.folder).card == own
    assert audited.manifest.contract == bundle.manifest.contract
    assert with_card(audited, AUDITED).manifest.files == audited.manifest.files


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "other"}, True),
        ({"classes": ["c", "d"]}, True),
        ({"versions": {"torch": "0"}}, True),
        ({"cut": CUT.model_copy(update={"name": "layer2"})}, False),
        ({"codec": "uniform:bits=5"}, False),
        ({"codec_state": {**SCALED.state(), "low": [0.0, 1e-7]}}, False),
        ({"defense": "noise:sigma=0.5"}, False),
        ({"noise": Tensor(name="noise", datatype="FP32", shape=(-1, 2, 4, 4))}, False),
        ({"features": Tensor(name="z", datatype="UINT8", shape=(-1, 4, 2, 4))}, False),
        ({"features": Tensor(name="z", datatype="FP32", shape=(-1, 2, 4, 4))}, False),
        ({"output": Tensor(name="logits", datatype="FP32", shape=(-1, 3))}, False),
        ({"files": {EDGE: "0", CLOUD: "1", GOLDEN: "2"}}, False),
        ({"files": {EDGE: "1", CLOUD: "0", GOLDEN: "2"}}, False),
    ],
)
def test_the_contract_is_what_both_sides_must_share(change: dict[str, Any], same: bool) -> None:
    first = MADE.model_copy(update={"files": {EDGE: "1", CLOUD: "1", GOLDEN: "1"}})
    assert len(contract_id(first)) == 32
    assert (contract_id(first.model_copy(update=change)) == contract_id(first)) is same


def test_every_problem_is_told_at_once(bundle: Bundle) -> None:
    (bundle.folder / EDGE).write_bytes(b"edgy")
    (bundle.folder / GOLDEN).unlink()
    assert bundle.verify() == [f"{EDGE} is altered", f"{GOLDEN} is missing"]
    with pytest.raises(BundleError, match=r"edge.onnx is altered; golden.safetensors is missing; fetch"):
        Bundle.load(bundle.folder)
    with pytest.raises(BundleError, match="altered"):
        bundle.read(EDGE)
    with pytest.raises(BundleError, match="cannot read"):
        bundle.read(GOLDEN)
    with pytest.raises(BundleError, match="has no"):
        bundle.read("../made/" + EDGE)


def escape(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda m: m["files"].update({name: m["files"][EDGE]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (escape("../edge.onnx"), "outside the bundle"),
        (escape("/etc/passwd"), "outside the bundle"),
        (escape("sub/edge.onnx"), "outside the bundle"),
        (escape("..\\edge.onnx"), "outside the bundle"),
        (escape(".."), "outside the bundle"),
        (escape("."), "outside the bundle"),
        (escape(""), "outside the bundle"),
        (lambda m: m["files"].pop(CLOUD), "cloud.onnx is not listed"),
        (lambda m: m.update(defense="noise"), "contract"),
        (lambda m: m.update(contract="0" * 32), "contract"),
        (lambda m: m.update(schema_version=9), "schema 9, expected 1"),
        (lambda m: m.pop("schema_version"), "not a bundle's manifest"),
        (lambda m: m.pop("features"), "features: Field required"),
    ],
)
def test_altered_manifests_are_refused(
    bundle: Bundle, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    (bundle.folder.parent / EDGE).write_bytes(FILES[EDGE])
    rewrite(bundle, change)
    with pytest.raises(BundleError, match=message):
        Bundle.load(bundle.folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_half_written_manifests_are_refused(bundle: Bundle, text: str) -> None:
    (bundle.folder / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        Bundle.load(bundle.folder)


def test_other_folders_are_no_bundles(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="not a bundle: no manifest"):
            Bundle.load(folder)


def test_a_bundle_is_replaced_and_nothing_is_left_beside_it(bundle: Bundle) -> None:
    newer = write_bundle(bundle.folder, MADE, {**FILES, EDGE: b"newer", "extra.bin": b"1"})
    assert newer.read(EDGE) == b"newer"
    write_bundle(bundle.folder, MADE, FILES)
    assert sorted(p.name for p in bundle.folder.iterdir()) == sorted([*FILES, MANIFEST])
    assert [p.name for p in bundle.folder.parent.iterdir()] == ["made"]


def test_a_failed_write_leaves_the_old_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError("disk full")
        return rename(self, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="disk full"):
        write_bundle(bundle.folder, MADE, {**FILES, EDGE: b"newer"})
    assert Bundle.load(bundle.folder).read(EDGE) == b"edge"
    assert [p.name for p in bundle.folder.parent.iterdir()] == ["made"]


def test_a_missing_source_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot copy"):
        write_bundle(tmp_path / "made", MADE, {**FILES, EDGE: tmp_path / "nowhere"})
    assert list(tmp_path.iterdir()) == []


def test_foreign_folders_are_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.png").write_bytes(b"cat")
    with pytest.raises(InputError, match="not a bundle"):
        write_bundle(foreign, MADE, FILES)
    (bundle.folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes.txt, which no bundle lists"):
        write_bundle(bundle.folder, MADE, FILES)
    with pytest.raises(InputError, match="is a file"):
        write_bundle(foreign / "cat.png", MADE, FILES)
    assert (foreign / "cat.png").read_bytes() == b"cat"
    assert (bundle.folder / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert write_bundle(tmp_path / "empty", MADE, FILES).verify() == []


@pytest.mark.parametrize("name", ["../x", "a/b", MANIFEST, "", ".."])
def test_only_plain_names_are_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="plain file name"):
        write_bundle(tmp_path / "made", MADE, {**FILES, name: b"x"})


def test_both_halves_are_needed(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"got no {CLOUD}"):
        write_bundle(tmp_path / "made", MADE, {EDGE: b"edge", GOLDEN: b"golden"})


def test_a_broken_card_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="card"):
        write_bundle(bundle.folder, MADE, {**FILES, CARD: b"{}"})


@pytest.mark.parametrize("call", ["fdopen", "copy", "fsync"])
def test_a_full_disk_leaves_the_old_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {p.name: p.read_bytes() for p in bundle.folder.iterdir()}
    owner = Source if call == "copy" else os
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_bundle(bundle.folder, MADE, {**FILES, EDGE: b"newer", CLOUD: bundle.folder / CLOUD})
        with pytest.raises(OSError, match="No space left"):
            with_card(bundle, AUDITED)
    assert {p.name: p.read_bytes() for p in bundle.folder.iterdir()} == before
    assert [p.name for p in bundle.folder.parent.iterdir()] == ["made"]


def test_a_bundle_that_was_cut_short_is_refused(bundle: Bundle) -> None:
    manifest = bundle.folder / MANIFEST
    whole = manifest.read_bytes()
    for end in range(0, len(whole) - 2, 97):
        manifest.write_bytes(whole[:end])
        with pytest.raises(BundleError):
            Bundle.load(bundle.folder)
    manifest.write_bytes(whole)
    (bundle.folder / CLOUD).write_bytes(b"clo")
    with pytest.raises(BundleError, match=r"cloud.onnx is altered"):
        Bundle.load(bundle.folder)


def test_manifests_from_before_halves_and_quantisation_are_read(bundle: Bundle) -> None:
    newer = ("half", "elsewhere", "quantization", "preprocessing")
    rewrite(bundle, lambda m: [m.pop(name) for name in newer])
    again = Bundle.load(bundle.folder)
    assert again.manifest == bundle.manifest
    assert again.half is None
    again.require_edge()
    again.require_cloud()


def test_bundles_from_before_recipes_keep_their_contract(bundle: Bundle) -> None:
    rewrite(bundle, lambda m: m.pop("picture"))
    again = Bundle.load(bundle.folder)
    assert again.manifest.picture is None
    assert again.manifest.contract == "9503518152dd922465641276720fffdd"


def test_how_pictures_are_read_is_part_of_the_contract(tmp_path: Path) -> None:
    contracts = {MADE.contract}
    changes: list[dict[str, Any]] = [{}, {"crop": "none"}, {"source": "arrays"}, {"loader": 2}, {"antialias": False}]
    for i, change in enumerate(changes):
        manifest = MADE.model_copy(update={"picture": PICTURE.model_copy(update=change)})
        written = write_bundle(tmp_path / str(i), manifest, FILES)
        assert Bundle.load(written.folder) == written
        contracts.add(written.manifest.contract)
    assert len(contracts) == 6
    rewrite(written, lambda m: m["picture"].update(crop="none"))
    with pytest.raises(BundleError, match=r"the contract in manifest\.json is not that of its halves"):
        Bundle.load(written.folder)
