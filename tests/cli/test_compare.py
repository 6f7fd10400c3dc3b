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
    words = ("compare", "small", *DIGITS, *QUICK, "--defense", "top_k:keep=0.5", "--drop", "60")
    done = splitveil(*words)
    assert done.code in (0, 3), done.err
    found = json.loads((splitveil.folder / "c" / "comparison.json").read_text())
    assert [c["label"] for c in found["contenders"]] == ["none", "top_k:keep=0.5"]
    assert "within 60 points" in done.out
    assert "not a defence" in done.out
    assert "<svg" in (splitveil.folder / "c" / "comparison.html").read_text()
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
