"""benchmarks/archive.py: records come back as they were, a damaged line is named, nobody's record is lost."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
from benchmarks.archive import Archive, main

from splitveil.core.errors import InputError
from splitveil.core.records import Document


class Thing(Document):
    kind: ClassVar[str] = "thing"
    value: float | None
    words: str = ""


class Other(Document):
    kind: ClassVar[str] = "other"
    values: tuple[float, ...] = ()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    there = Archive(tmp_path / "page.jsonl")
    there.put({"a": Thing(value=0.1), "b": Thing(value=1e-17, words='ä | "\u2028\n'), "c": Thing(value=3)})
    return there


def test_records_come_back_and_lie_one_a_line_in_order(archive: Archive) -> None:
    assert archive.all(Thing) == {"a": Thing(value=0.1), "b": Thing(value=1e-17, words='ä | "\u2028\n'),
                                  "c": Thing(value=3)}  # fmt: skip
    assert archive.find(Thing, "b") == archive.all(Thing)["b"]
    assert archive.find(Thing, "d") is None
    assert archive.find(Other, "a") is None
    lines = [json.loads(line) for line in archive.path.read_bytes().split(b"\n")[:-1]]
    assert [(line["kind"], line["name"]) for line in lines] == [("thing", "a"), ("thing", "b"), ("thing", "c")]
    assert lines[0]["record"] == json.loads(Thing(value=0.1).to_json())


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert Archive(tmp_path / "none.jsonl").all(Thing) == {}


def test_what_is_no_number_is_null_as_in_a_file_of_its_own(archive: Archive) -> None:
    archive.put({"a": Thing(value=math.inf)})
    assert archive.find(Thing, "a") == Thing.from_json(Thing(value=math.inf).to_json()) == Thing(value=None)


def test_a_name_is_replaced_where_it_stands_and_other_lines_keep_every_byte(archive: Archive) -> None:
    before = archive.path.read_bytes().splitlines()
    archive.put({"b": Thing(value=2), "d": Thing(value=4)})
    after = archive.path.read_bytes().splitlines()
    assert list(archive.all(Thing)) == ["a", "b", "c", "d"]
    assert (after[0], after[2]) == (before[0], before[2])
    assert archive.all(Thing)["b"].value == 2


def test_keys_that_this_version_does_not_know_stay(archive: Archive) -> None:
    later = '{"kind":"later","name":"a","record":{"schema_version":1,"known":[1,2.50,null,{"to":"others"}]}}'
    archive.path.write_text(archive.path.read_text() + later + "\n")
    archive.put({"a": Thing(value=5)})
    assert json.loads(archive.path.read_text().splitlines()[-1]) == json.loads(later)


def test_two_kinds_may_bear_one_name(archive: Archive) -> None:
    archive.put({"a": Other(values=(1, 2))})
    assert archive.find(Thing, "a") == Thing(value=0.1)
    assert archive.find(Other, "a") == Other(values=(1, 2))


def test_dropped_records_are_gone(archive: Archive) -> None:
    archive.put({"a": Other()})
    archive.drop(Thing, ["a", "nobody"])
    assert list(archive.all(Thing)) == ["b", "c"]
    assert list(archive.all(Other)) == ["a"]


def test_a_record_is_made_once(archive: Archive) -> None:
    made = [archive.kept(Thing, name, lambda: Thing(value=7)) for name in ("a", "new", "new")]
    assert [thing.value for thing in made] == [0.1, 7, 7]
    assert archive.kept(Thing, "new", lambda: Thing(value=8)).value == 7


@pytest.mark.parametrize("line", ["{", '{"kind":"thing","name":"x"}', '{"kind":"thing","record":{}}', "[]", ""])
def test_a_damaged_line_is_named_and_nothing_is_written_over_it(line: str, archive: Archive) -> None:
    lines = archive.path.read_text().split("\n")
    damaged = "\n".join([lines[0], line, *lines[1:]])
    archive.path.write_text(damaged)
    for reading in (archive.lines, lambda: archive.all(Thing), lambda: archive.put({"z": Thing(value=1)})):
        with pytest.raises(InputError, match=r"line 2 of \S+page\.jsonl is not a valid line") as said:
            reading()
        assert "\n" not in str(said.value)
    assert archive.path.read_text() == damaged


def test_a_line_that_broke_off_is_named(archive: Archive) -> None:
    archive.path.write_bytes(archive.path.read_bytes()[:-20])
    with pytest.raises(InputError, match="line 3 of"):
        archive.all(Thing)


def test_one_name_twice_is_refused(archive: Archive) -> None:
    first = archive.path.read_text().splitlines()[0]
    archive.path.write_text(archive.path.read_text() + first + "\n")
    with pytest.raises(InputError, match=r"line 4 of .* is a second thing 'a', expected one"):
        archive.all(Thing)


def test_a_record_that_is_not_valid_or_of_another_schema_is_named(archive: Archive) -> None:
    archive.path.write_text('{"kind":"thing","name":"a","record":{"value":"much"}}\n')
    with pytest.raises(InputError, match=r"thing 'a' of .*page\.jsonl is not a valid thing \(value"):
        archive.all(Thing)
    archive.path.write_text('{"kind":"thing","name":"a","record":{"schema_version":2,"value":1}}\n')
    with pytest.raises(InputError, match=r"thing 'a' of .* has schema 2, expected 1"):
        archive.find(Thing, "a")


def test_many_writers_lose_nothing(archive: Archive) -> None:
    def put(number: int) -> None:
        Archive(archive.path).put({f"n{number}": Thing(value=number)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(40)))
    assert {name for name in archive.all(Thing) if name.startswith("n")} == {f"n{k}" for k in range(40)}
    assert [p.name for p in archive.path.parent.iterdir()] == ["page.jsonl"]


def test_the_command_lists_and_prints(archive: Archive, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    archive.put({"a": Other(values=(1, 2))})
    assert main([str(archive.path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["thing\ta", "thing\tb", "thing\tc", "other\ta"]
    assert main([str(archive.path), "a", "--kind", "other"]) == 0
    (tmp_path / "one.json").write_text(capsys.readouterr().out)
    assert Other.load(tmp_path / "one.json") == Other(values=(1, 2))
    for wrong in (["a"], ["nobody"], ["b", "--kind", "other"]):
        assert main([str(archive.path), *wrong]) == 1
        assert capsys.readouterr().err.startswith("error: expected a record")
    assert main([str(tmp_path / "none.jsonl")]) == 1
    assert "not there" in capsys.readouterr().err
