"""Ed25519 signatures over a bundle's manifest, and so over every file that the manifest names by its hash.

Hashes tell damage; a signature tells who wrote the bundle, as far as the public key came by a way that the writer of
the bundle could not change. Needs ``cryptography`` (`pip install 'splitveil[serve]'`).
"""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitveil.core.errors import BundleError, InputError, MissingExtraError
from splitveil.core.records import Manifest, Signature, write_atomically
from splitveil.wire.bundle.folder import MANIFEST, SIGNATURE, Bundle

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MOST = 64 * 1024
"""Bytes of a key or a signature file; anything longer is neither."""


def make_keys(prefix: Path) -> tuple[Path, Path]:
    """A fresh pair: ``PREFIX.key`` (PKCS #8 PEM, not encrypted, mode 0600) and ``PREFIX.pub`` (PEM). Replaces nothing.

    Raises:
        InputError: one of the files exists.
        MissingExtraError: ``cryptography`` is not installed.
    """
    crypto = _cryptography()
    private, public = prefix.with_name(prefix.name + ".key"), prefix.with_name(prefix.name + ".pub")
    for path in (private, public):
        if path.exists():
            raise InputError(f"{path} exists; choose another prefix, for a key that is lost cannot be made again.")
    key = crypto.ed25519.Ed25519PrivateKey.generate()
    form = crypto.serialization
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    private.parent.mkdir(parents=True, exist_ok=True)
    # Created with its mode, so that there is no moment when others may read it.
    handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        write_atomically(
            public, key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        )
    except BaseException:
        private.unlink(missing_ok=True)
        raise
    return private, public


def sign(bundle: Bundle, key: Path) -> Signature:
    """Sign the bundle as it lies there: writes ``manifest.sig`` atomically, in the place of an older one.

    Args:
        bundle: checked once more before it is signed.
        key: file of a private key, readable by its owner alone.

    Raises:
        InputError: not such a key, or others may read it.
        BundleError: the bundle is altered.
    """
    private = _private_key(key)
    text = _manifest_bytes(bundle.folder)
    if Bundle.load(bundle.folder).manifest != _read_manifest(text, bundle.folder):
        raise BundleError(f"{bundle.folder} changed while it was signed; sign it again.")
    made = Signature(key=_fingerprint(private.public_key()), signature=private.sign(text).hex())
    made.save(bundle.folder / SIGNATURE)
    return made


def verify_signature(folder: Path, public_key: Path) -> Manifest:
    """The manifest whose exact bytes the owner of this key signed; the files are not read (`load_signed` does).

    Raises:
        InputError: not a public key.
        BundleError: no signature, one by another key, or one of other bytes.
    """
    key = _public_key(public_key)
    path = folder / SIGNATURE
    text = _manifest_bytes(folder)
    if not path.is_file():
        raise BundleError(f"{folder} is not signed; sign it with `splitveil bundle sign`, or fetch the signed bundle.")
    try:
        found = Signature.from_json(_short(path), str(path))
        signature = bytes.fromhex(found.signature)
    except (InputError, ValueError):
        raise BundleError(f"{path} is not a signature; fetch the signed bundle anew.") from None
    if found.key != _fingerprint(key):
        raise BundleError(
            f"{folder} is signed by key {found.key[:16]}, expected {_fingerprint(key)[:16]}; do not use it."
        )
    try:
        key.verify(signature, text)
    except _cryptography().InvalidSignature:
        raise BundleError(
            f"the signature of {folder} is not of its {MANIFEST}; fetch the signed bundle anew."
        ) from None
    return _read_manifest(text, folder)


def load_signed(folder: Path, public_key: Path) -> Bundle:
    """A bundle that this key signed, every file checked: what runs is what was signed.

    Raises:
        InputError: not a bundle, or not a public key.
        BundleError: the signature does not hold, or a file is missing or altered.
    """
    signed = verify_signature(folder, public_key)
    bundle = Bundle.load(folder)
    if bundle.manifest != signed:
        raise BundleError(f"{folder} changed while it was read; load it again.")
    return bundle


def _manifest_bytes(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError:
        raise InputError(
            f"{folder} is not a bundle: no {MANIFEST}; give a folder that `splitveil fit` wrote."
        ) from None


def _read_manifest(text: bytes, folder: Path) -> Manifest:
    try:
        return Manifest.from_json(text, str(folder / MANIFEST))
    except InputError as error:
        raise BundleError(str(error)) from None


def _private_key(path: Path) -> "Ed25519PrivateKey":
    crypto = _cryptography()
    content = _short(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise InputError(f"others may read the private key {path}; chmod 600 it, and make another if they did.")
    key: Ed25519PrivateKey
    try:
        key = crypto.serialization.load_pem_private_key(content, password=None)
        known = isinstance(key, crypto.ed25519.Ed25519PrivateKey)
    except (ValueError, TypeError, crypto.UnsupportedAlgorithm):
        known = False
    if not known:
        raise InputError(f"{path} is not an Ed25519 private key; make one with `splitveil bundle keygen`.")
    return key


def _public_key(path: Path) -> "Ed25519PublicKey":
    crypto = _cryptography()
    key: Ed25519PublicKey
    try:
        key = crypto.serialization.load_pem_public_key(_short(path))
        known = isinstance(key, crypto.ed25519.Ed25519PublicKey)
    except (ValueError, TypeError, crypto.UnsupportedAlgorithm):
        known = False
    if not known:
        raise InputError(f"{path} is not an Ed25519 public key; give the .pub of `splitveil bundle keygen`.")
    return key


def _fingerprint(key: "Ed25519PublicKey") -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _short(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path.") from None


def _cryptography() -> Any:
    try:
        from splitveil.wire.bundle import primitives
    except ModuleNotFoundError:
        raise MissingExtraError("signatures need cryptography; pip install 'splitveil[serve]'.") from None
    return primitives
