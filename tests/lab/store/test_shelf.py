"""What is kept is found again, whole or not at all, here or behind a URL."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.lab.store import Facts, Kept, Store
from splitveil.lab.store.shelf import is_remote


@dataclass(frozen=True)
class Of(Facts):
    value: object


@pytest.fixture(params=["folder", "memory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    return tmp_path / "s" if request.param == "folder" else f"memory://{tmp_path.name}/s"


def made(text: str = '{"a": 1}') -> Kept:
    return text, {"x": torch.arange(6).reshape(2, 3), "y": torch.tensor([0.5])}


def test_it_is_made_once(where: Path | str) -> None:
    calls: list[Path | None] = []

    def make(folder: Path | None) -> Kept:
        calls.append(folder)
        return made()

    assert Of(1) not in Store(where)
    for _ in range(2):
        text, tensors = Store(where).kept(Of(1), make)
        assert text == '{"a": 1}'
        assert torch.equal(tensors["x"], torch.arange(6).reshape(2, 3))
        tensors["x"] += 1
    assert len(calls) == 1
    assert Of(1) in Store(where)
    assert Store(where).find(Of(2)) is None
    Store(where).drop(Of(1))
    Store(where).drop(Of(1))
    assert Of(1) not in Store(where)


def test_json_alone_is_kept_too(where: Path | str) -> None:
    Store(where).keep(Of(1), "[1, 2]", {})
    assert Store(where).find(Of(1)) == ("[1, 2]", {})


@pytest.mark.parametrize("how", ["cut short", "one byte", "empty", "record"])
def test_a_damaged_entry_is_named(how: str, where: Path | str) -> None:
    store = Store(where)
    store.keep(Of(1), *made())
    assert store._place is not None
    name = f"{Of(1).name}.safetensors"
    content = store._place.read(name) or b""
    last = bytes([content[-1] ^ 1])
    store._place.write(name, {
        "cut short": content[:-4], "one byte": content[:-1] + last, "empty": b"",
        "record": content.replace(b'a\\": 1', b'a\\": 2'),
    }[how])  # fmt: skip
    with pytest.raises(InputError, match=rf"s/{name} is damaged; delete it and run again with --resume"):
        Store(where).find(Of(1))


def test_checkpoints_lie_here_and_go_when_it_is_done(where: Path | str, tmp_path: Path) -> None:
    store, kept = Store(where, work=tmp_path / "work"), list[Path]()

    def stopped(folder: Path | None) -> Kept:
        assert folder is not None
        kept.append(folder)
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    def going_on(folder: Path | None) -> Kept:
        assert folder == kept[0]
        assert (folder / "half.txt").read_text() == "half"
        return made()

    with pytest.raises(KeyboardInterrupt):
        store.kept(Of(1), stopped)
    assert kept[0].parent == tmp_path / "work"
    store.kept(Of(1), going_on)
    assert not kept[0].exists()
    assert Store(None).workdir(Of(1)) is None
    assert (Store(where).workdir(Of(1)) is None) == is_remote(where)


def test_nothing_is_seen_of_what_was_not_written_to_the_end(where: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(where)
    store.keep(Of(1), *made("old"))
    full = OSError(28, "No space left on device")

    def fail(*_: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        patch.setattr("fsspec.implementations.memory.MemoryFile.commit", fail)
        with pytest.raises(OSError, match="No space"):
            store.keep(Of(1), *made("new"))
    kept = Store(where).find(Of(1))
    assert kept is not None
    assert kept[0] == "old"


def test_work_of_another_machine_is_used_and_told(where: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("splitveil.lab.store.shelf.hardware", lambda: "a Xeon, 8 cores")
        Store(where).keep(Of(1), *made())
    Store(where).keep(Of(2), *made())
    store = Store(where)
    assert store.find(Of(1))
    assert store.find(Of(2))
    (note,) = store.notes
    assert note.startswith("1 of the results were found finished, made on a Xeon, 8 cores, ")


def test_nothing_is_kept_nowhere() -> None:
    store = Store(None)
    assert store.kept(Of(1), lambda _: made("x"))[0] == "x"
    assert Of(1) not in store


def test_a_url_that_nothing_reads_is_named() -> None:
    with pytest.raises(InputError, match=r"cannot keep results at nosuch://a/b .*; give a folder"):
        Store("nosuch://a/b").find(Of(1))
