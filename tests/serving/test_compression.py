import tracemalloc

import numpy as np
import pytest

from splitveil.core.errors import ContractError, InputError, MissingExtraError
from splitveil.wire.compression import pack, unpack

zstandard = pytest.importorskip("zstandard")
PLAIN = np.random.default_rng(0).normal(0, 8, 8192).astype(np.int8).tobytes()


def test_it_comes_back_whole_and_smaller() -> None:
    packed = pack(PLAIN, "zstd")
    assert len(packed) < 0.8 * len(PLAIN)
    assert unpack(packed, "zstd", len(PLAIN)) == PLAIN


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    """64 MiB of zeros in some 6 KiB: as it is, with a lie in its header, and without one."""
    zeros = bytes(2**26)
    honest = pack(zeros, "zstd")
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(zeros)
    # Descriptor, window, then 4 bytes of content size (RFC 8878, 3.1.1.1): the claim is rewritten, the content is not.
    lying = honest[:6] + (8192).to_bytes(4, "little") + honest[10:]
    assert zstandard.frame_content_size(lying) == 8192
    tracemalloc.start()
    try:
        for bomb in (honest, silent, lying):
            with pytest.raises(ContractError, match=r"zstd frame"):
                unpack(bomb, "zstd", 8192)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("expected", [0, 8191, 8193])
def test_another_length_is_refused(expected: int) -> None:
    with pytest.raises(ContractError, match=f"states {expected} bytes"):
        unpack(pack(PLAIN, "zstd"), "zstd", expected)


def test_damage_and_additions_are_refused() -> None:
    good = pack(PLAIN, "zstd")
    for bad in (b"", good[:-1], good + b"\0", good + good, b"\0" * 100, PLAIN, good[:20] + b"\xff" * 40 + good[60:]):
        with pytest.raises(ContractError, match="zstd"):
            unpack(bad, "zstd", len(PLAIN))


def test_encodings_that_nobody_knows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContractError, match="expected content_encoding zstd, got another"):
        unpack(PLAIN, "gzip", len(PLAIN))
    with pytest.raises(InputError, match="expected zstd, got 'gzip'"):
        pack(PLAIN, "gzip")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        pack(PLAIN, "zstd")
    with pytest.raises(ContractError, match="send plain contents"):
        unpack(PLAIN, "zstd", len(PLAIN))
