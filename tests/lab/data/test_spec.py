from pathlib import Path

import pytest

from splitveil.core.errors import DataError
from splitveil.lab.data.spec import CACHE, DataSpec


def test_everything_is_read() -> None:
    spec = DataSpec.parse("npz:a/b.npz?size=32&n=10&channels=3&download=true&root=/r")
    assert spec == DataSpec("npz", Path("a/b.npz"), 32, 10, 3, True, Path("/r"))


def test_bare_name_has_defaults() -> None:
    assert DataSpec.parse("digits") == DataSpec("digits", None, None, None, None, False, CACHE)


def test_words_keep_the_file_name_and_what_changes_images() -> None:
    assert str(DataSpec.parse("npz:/secret/place/b.npz?n=10&root=/r&size=8")) == "npz:b.npz?size=8&n=10"
    assert str(DataSpec.parse("folder:.")) == "folder:."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("digits?sise=32", "no option 'sise'. Did you mean 'size'? Options: size, n, channels, download, root"),
        ("digits?size", "expected key=value after the ? of 'digits?size', got 'size'; write ?size=32."),
        ("digits?size=big", "expected a positive whole number for size, got 'big'; write for example size=32."),
        ("digits?n=0", "expected a positive whole number for n, got '0'"),
        ("digits?channels=2", "expected 1 or 3 for channels, got '2'; write channels=1 for grey"),
        ("mnist?download=yes", "expected true or false for download, got 'yes'; write download=true."),
    ],
)
def test_mistakes_are_explained(text: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        DataSpec.parse(text)
    assert sentence in str(caught.value)


def test_sizes_are_squares_or_width_times_height() -> None:
    assert (DataSpec.parse("mnist?size=64x48").size, DataSpec.parse("mnist?size=64x64").size) == ((64, 48), 64)
    assert (DataSpec.parse("mnist?size=64x48").frame, DataSpec.parse("mnist?size=9").frame) == ((64, 48), (9, 9))
    assert DataSpec.parse("mnist").frame is None
    assert str(DataSpec.parse("mnist?size=64x48&n=2")) == "mnist?size=64x48&n=2"
    assert str(DataSpec.parse("mnist?size=64x64&skip_broken=true")) == "mnist?size=64"
    for wrong in ("64x", "x48", "64x48x3", "0x4", "64x-1"):
        with pytest.raises(DataError, match=r"expected width x height, two positive .*write for example size=64x48\."):
            DataSpec.parse(f"mnist?size={wrong}")
