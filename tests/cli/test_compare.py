import json

import pytest

from .conftest import Command

DIGITS = ("--data", "digits?n=200", "--at", "relu2")
QUICK = (
    "--attack",
    "decoder:size=tiny,epochs=1,steps=5",
    "-n",
    "20",
    "--seeds",
    "0",
    "--epochs",
    "1",
    "--trials",
    "1",
    "--out",
    "c",
)


def test_compare_writes_a_record_and_a_page(splitveil: Command) -> None:
    defenses = ("--defense", "top_k:keep=0.5", "--defense", "half")
    words = ("compare", "small", *DIGITS, *QUICK, *defenses, "--drop", "60", "--metric", "gms")
    done = splitveil(*words)
    assert done.code in (0, 3), done.err
    found = json.loads((splitveil.folder / "c" / "comparison.json").read_text())
    assert [c["label"] for c in found["contenders"]] == ["none", "top_k:keep=0.5", "half"]
    assert "within 60 points" in done.out
    assert "95 %" not in done.out, "one seed has no interval, and an empty column says nothing"
    assert done.out.count("not a defence") == 2
    assert "without the features" not in done.out
    assert done.out.count("the undefended split's features") == 2, "class mean and nearest image"
    assert "more leaks more" in done.out.partition("further metrics")[2]
    extra = found["contenders"][0]["measured"]["extra"]["gms"]
    assert (extra["unit"], extra["higher_leaks"]) == ("1", True)
    page = (splitveil.folder / "c" / "comparison.html").read_text()
    assert "<svg" in page
    assert (splitveil.folder / "c" / "comparison.svg").read_text().startswith("<svg")
    assert "Further metrics" in page
    assert f"With seed 0, {found['notes'][-1]};" in page, "where settings were chosen is what the record says"
    assert "compare:" in done.err, "progress"
    again = splitveil(*words, "--resume", "--json")
    assert again.json["contenders"] == found["contenders"]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--defense", "noize"), "Did you mean 'noise'"),
        (("--defense", "noise:sigmas=1"), "Did you mean 'sigma'"),
        (("--defense", "noise", "--drop", "-1"), "between 0 and 100"),
        (("--defense", "noise", "--suite", "smokes"), "Did you mean 'smoke'"),
    ],
)
def test_mistakes_name_their_remedy(splitveil: Command, words: tuple[str, ...], remedy: str) -> None:
    attacks = () if "--suite" in words else QUICK[:2]
    done = splitveil("compare", "small", *DIGITS, *attacks, *QUICK[2:], *words)
    assert done.code == 2, done
    assert remedy in done.err
