"""Ed25519 signatures over a bundle's manifest, and so over every file that the manifest names by its hash.

Hashes tell damage; a signature tells who wrote the bundle, as far as the public key came by a way that the writer of
the bundle could not change. Needs ``cryptography`` (`pip install 'splitveil[serve]'`).
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitveil.core.errors import BundleError, InputError, MissingExtraError
from splitveil.core.printing import phrase
from splitveil.core.records import Manifest, Signature, write_atomically
from splitveil.wire.bundle.folder import MANIFEST, SIGNATURE, Bundle, read_manifest
from splitveil.wire.bundle.replacing import NEW, SECRET, sync

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
    private.parent.mkdir(mode=SECRET, parents=True, exist_ok=True)
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
    text = Bundle.load(bundle.folder).content.text
    made = Signature(key=_fingerprint(private.public_key()), signature=private.sign(text).hex())
    _put_beside(bundle.folder / SIGNATURE, made.to_json().encode() + b"\n")
    return made


def verify_signature(folder: Path, public_key: Path) -> Manifest:
    """The manifest whose exact bytes the owner of this key signed; the files are not read (`load_signed` does).

    Raises:
        InputError: not a public key.
        BundleError: no signature, one by another key, or one of other bytes.
    """
    return check_signature(Bundle.peek(folder), public_key).manifest


def load_signed(folder: Path, public_key: Path, *, keep: Collection[str] = ()) -> Bundle:
    """A bundle that this key signed, every file checked: what runs is what was signed. keep: as of `Bundle.load`.

    Raises:
        InputError: not a bundle, or not a public key.
        BundleError: the signature does not hold, or a file is missing or altered.
    """
    check_signature(Bundle.peek(folder), public_key)
    return check_signature(Bundle.load(folder, keep=keep), public_key)


def check_signature(bundle: Bundle, public_key: Path) -> Bundle:
    """The same bundle, if the owner of this key signed the very bytes that its manifest was read from.

    Raises:
        InputError: not a public key.
        BundleError: no signature, one by another key, or one of other bytes.
    """
    key, folder = _public_key(public_key), bundle.folder
    content = bundle.content if bundle.content.text else Bundle.peek(folder).content
    if content.signature is None:
        # Signed since it was loaded, it may be; what is signed is what was loaded, or else it does not hold.
        content = replace(content, signature=Bundle.peek(folder).content.signature)
    if content.signature is None:
        raise BundleError(f"{folder} is not signed; sign it with `splitveil bundle sign`, or fetch the signed bundle.")
    try:
        found = Signature.from_json(content.signature, f"{folder / SIGNATURE}")
        signature = bytes.fromhex(found.signature)
    except (InputError, ValueError):
        raise BundleError(f"{folder / SIGNATURE} is not a signature; fetch the signed bundle anew.") from None
    if found.key != _fingerprint(key):
        raise BundleError(
            f"{folder} is signed by key {phrase(found.key[:16])}, expected {_fingerprint(key)[:16]}; do not use it."
        )
    try:
        key.verify(signature, content.text)
    except _cryptography().InvalidSignature:
        raise BundleError(
            f"the signature of {folder} is not of its {MANIFEST}; fetch the signed bundle anew."
        ) from None
    if read_manifest(content.text, folder) != bundle.manifest:
        raise BundleError(f"{folder} changed while it was read; load it again.")
    return bundle


def _put_beside(path: Path, content: bytes) -> None:
    """Write a file of a bundle at once, and never another one into its folder, which no manifest would list."""
    folder = path.parent.resolve()
    mode = folder.stat().st_mode & 0o666
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.{NEW}-") as beside:
            fresh = Path(beside) / path.name
            write_atomically(fresh, content)
            fresh.chmod(mode)
            fresh.replace(folder / path.name)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        # Nothing can be written beside a folder that was mounted.
        write_atomically(path, content)
        path.chmod(mode)
    sync(folder)


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
