import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitveil.core.errors import DataError
from splitveil.wire.arrays import Archive, read_array

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def stated(shape: str, content: bytes = b"\0" * 24, descr: str = "<f4") -> bytes:
    """An .npy of a header and whatever follows it."""
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


@pytest.mark.parametrize(
    "x", [X, np.asfortranarray(X), X[:0], np.array("a"), np.array(3), X > 4, np.array(["a", "bc"])]
)
def test_what_numpy_writes_is_read(tmp_path: Path, x: NDArray[Any]) -> None:
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "x.npz", x=x, y=X)
    for found in (read_array(tmp_path / "x.npy"), Archive(tmp_path / "x.npz").read("x")):
        np.testing.assert_array_equal(found, x)
        assert (found.dtype, found.shape) == (x.dtype, x.shape)
    with Archive(tmp_path / "x.npz") as held:
        assert held.names == ["x", "y"]
        assert held.kind("x") == x.dtype.kind


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (stated("(1000000, 1000000, 1000)"), "states 4,000,000,000,000,000 bytes and holds 24"),
        (stated("(7,)"), "states 28 bytes and holds 24"),
        (stated("(-1,)"), ""),
        (stated("(" * 5000), ""),
        (stated("(2,)", descr="|O"), "Object"),
        (stated("(99999999999999999999999999,)"), ""),
        (b"\x93NUMPY\x07\x00", ""),
        (b"\x93NUMPY", ""),
        (b"\x80\x04K\x01.", ""),
        (b"", ""),
    ],
)
def test_what_states_more_than_it_holds_is_one_sentence(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.npy is not a plain \.npy array \(.*{why}.*\); write it"):
        read_array(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as held:
        held.writestr("x.npy", content)
    with pytest.raises(DataError, match="is not a whole NumPy archive"):
        Archive(tmp_path / "x.npz").read("x")


def test_damage_and_bombs_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 9, 5000, np.uint8))
    whole = path.read_bytes()
    said = list[str]()
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            with Archive(path) as held:
                held.read("x")
        except DataError as error:
            said.append(str(error))
    assert len(said) > len(whole) / 37 / 2
    assert "pickle" not in " ".join(said)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("x.npy", "w") as file:
        file.write(stated("(300000000,)", b"", "|u1"))
        for _ in range(300):
            file.write(b"\0" * 1_000_000)
    with Archive(path) as held, pytest.raises(DataError, match=r"unpacks to 300,000,\d+ bytes.*save it unpacked"):
        held.read("x")
    with pytest.raises(DataError, match="Is a directory"):
        read_array(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_array(tmp_path / "gone.npy")
