import json
import logging
import os
import stat
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from splitveil.core.errors import BundleError, InputError, MissingExtraError
from splitveil.wire.bundle import (  # fmt: skip
    CARD,
    EDGE,
    MANIFEST,
    SIGNATURE,
    Bundle,
    load_signed,
    make_keys,
    sign,
    verify_signature,
    with_card,
    write_bundle,
)
from tests.wire.bundle.test_folder import AUDITED, FILES, MADE


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path / "owner")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return with_card(write_bundle(tmp_path / "made", MADE, FILES), AUDITED)


def test_what_was_signed_is_loaded(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    private, public = keys
    made = sign(bundle, private)
    assert verify_signature(bundle.folder, public) == bundle.manifest
    assert load_signed(bundle.folder, public) == bundle == Bundle.load(bundle.folder)
    # By the library itself: the signature is of the manifest's bytes and nothing else.
    key = serialization.load_pem_public_key(public.read_bytes())
    assert isinstance(key, ed25519.Ed25519PublicKey)
    key.verify(bytes.fromhex(made.signature), (bundle.folder / MANIFEST).read_bytes())


def test_the_private_key_is_for_its_owner_alone(keys: tuple[Path, Path], bundle: Bundle) -> None:
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in public.read_bytes()
    with pytest.raises(InputError, match="exists"):
        make_keys(private.with_suffix(""))
    private.chmod(0o640)
    with pytest.raises(InputError, match="others may read"):
        sign(bundle, private)


def test_nobody_else_can_make_the_first_of_two_files(tmp_path: Path) -> None:
    (tmp_path / "owner.pub").write_text("mine")
    with pytest.raises(InputError, match=r"owner.pub exists"):
        make_keys(tmp_path / "owner")
    assert not (tmp_path / "owner.key").exists()


def test_a_changed_manifest_card_or_file_is_refused(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    private, public = keys
    sign(bundle, private)
    manifest, signed = bundle.folder / MANIFEST, (bundle.folder / MANIFEST).read_bytes()
    # The same record in other bytes, and another record whose hashes all hold.
    for text in (signed + b" ", json.dumps(json.loads(signed) | {"task_accuracy": 1.0}).encode()):
        manifest.write_bytes(text)
        assert Bundle.load(bundle.folder).verify() == []
        with pytest.raises(BundleError, match=r"signature of .* is not of its manifest"):
            load_signed(bundle.folder, public)
    manifest.write_bytes(signed)
    for name in (CARD, EDGE):
        content = (bundle.folder / name).read_bytes()
        (bundle.folder / name).write_bytes(content + b" ")
        with pytest.raises(BundleError, match=f"{name} is altered"):
            load_signed(bundle.folder, public)
        (bundle.folder / name).write_bytes(content)
    load_signed(bundle.folder, public)


def test_other_signatures_are_refused(bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    with pytest.raises(BundleError, match="is not signed"):
        verify_signature(bundle.folder, public)
    stranger, _ = make_keys(tmp_path / "stranger")
    foreign = sign(bundle, stranger)
    with pytest.raises(BundleError, match="is signed by key"):
        verify_signature(bundle.folder, public)
    ours = sign(bundle, private)
    # A stranger's signature under our key's name.
    foreign.model_copy(update={"key": ours.key}).save(bundle.folder / SIGNATURE)
    with pytest.raises(BundleError, match="is not of its manifest"):
        verify_signature(bundle.folder, public)
    for text in ("", "{}", ours.to_json().replace(ours.signature, "zz"), ours.to_json().replace("ed25519", "none")):
        (bundle.folder / SIGNATURE).write_text(text)
        with pytest.raises(BundleError, match="is not a signature"):
            verify_signature(bundle.folder, public)


def test_what_is_no_such_key_is_refused(bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    curve = tmp_path / "curve"
    curve.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    curve.chmod(0o600)
    public.chmod(0o600)
    for path, message in ((curve, "not an Ed25519 private"), (public, "not an Ed25519"), (tmp_path / "no", "cannot")):
        with pytest.raises(InputError, match=message):
            sign(bundle, path)
    sign(bundle, private)
    for path, message in ((private, "not an Ed25519 public"), (tmp_path / "no", "cannot read")):
        with pytest.raises(InputError, match=message) as told:
            verify_signature(bundle.folder, path)
        assert private.read_text().splitlines()[1] not in str(told.value)


def test_an_altered_bundle_is_not_signed(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    (bundle.folder / EDGE).write_bytes(b"other")
    with pytest.raises(BundleError, match="altered"):
        sign(bundle, keys[0])
    assert not (bundle.folder / SIGNATURE).exists()


def test_a_new_card_drops_the_signature_and_says_so(
    bundle: Bundle, keys: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    sign(bundle, keys[0])
    with caplog.at_level(logging.WARNING):
        with_card(bundle, AUDITED)
    assert "signature was dropped" in caplog.text
    assert not (bundle.folder / SIGNATURE).exists()
    caplog.clear()
    with_card(bundle, AUDITED)
    assert caplog.text == ""


def test_without_cryptography_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "splitveil.wire.bundle.primitives", raising=False)
    monkeypatch.delattr("splitveil.wire.bundle.primitives", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(MissingExtraError, match=r"splitveil\[serve\]"):
        make_keys(tmp_path / "owner")


def test_a_failed_write_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        make_keys(tmp_path / "owner")
    assert list(tmp_path.iterdir()) == []
