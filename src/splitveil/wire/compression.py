"""Features compressed on the wire, if both ends want it: off by default, since the length then tells of the content.

An observer who cannot read an encrypted connection still sees how long each message is. Without compression all
requests of n images are equally long; with it, a plain picture gives a shorter one than a busy picture.
"""

from splitveil.core.errors import ContractError, InputError, MissingExtraError

PARAMETER = "content_encoding"
"""Request parameter that names the encoding; without it contents are plain."""
ZSTD = "zstd"
ENCODINGS = (ZSTD,)
LEVEL = 3


def check_encoding(encoding: str) -> None:
    """Make sure that this device can compress so.

    Raises:
        InputError: no such encoding.
        MissingExtraError: its library is not installed.
    """
    if encoding not in ENCODINGS:
        raise InputError(f"expected {' or '.join(ENCODINGS)}, got {encoding!r}; leave it out to send plain contents.")
    try:
        import zstandard  # noqa: F401
    except ImportError:
        raise MissingExtraError("zstd needs a library that is not here; pip install 'zstandard>=0.23'.") from None


def pack(content: bytes, encoding: str) -> bytes:
    """Compressed content, whose frame states the plain length.

    Raises:
        InputError, MissingExtraError: as `check_encoding` says.
    """
    check_encoding(encoding)
    import zstandard

    packed: bytes = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(content)
    return packed


def unpack(content: bytes, encoding: str, expected: int) -> bytes:
    """Plain content of exactly `expected` bytes. Never more memory than that is written, whatever `content` claims.

    Raises:
        ContractError: another encoding, no valid frame, another length, or bytes behind the frame.
    """
    if encoding not in ENCODINGS:
        raise ContractError(f"expected {PARAMETER} {' or '.join(ENCODINGS)}, got another; send plain contents.")
    try:
        import zstandard
    except ImportError:
        raise ContractError("this server was installed without zstd; send plain contents.") from None
    try:
        # The stated length decides how much is allocated, so it must be right before anything is unpacked.
        stated = zstandard.frame_content_size(content)
        if stated != expected:
            raise ContractError(f"expected a zstd frame that states {expected} bytes; send the whole tensor in one.")
        plain: bytes = zstandard.ZstdDecompressor().decompress(
            content, max_output_size=expected, allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise ContractError("the zstd frame is damaged; compress the raw content in one frame.") from None
    if len(plain) != expected:
        raise ContractError(f"expected {expected} bytes in the zstd frame, got {len(plain)}; send the whole tensor.")
    return plain
