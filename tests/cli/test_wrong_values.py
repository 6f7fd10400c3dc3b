"""Wrong values of every kind: one sentence, exit code 2, never a traceback. In one process that imports once."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from splitveil.cli import main
for line in sys.stdin:
    words = line.rstrip("\\n").split("\\t")
    sys.argv = ["splitveil", *words]
    print("begin", flush=True, file=sys.stderr)
    try:
        main()
    except SystemExit as done:
        print("code", done.code, flush=True, file=sys.stderr)
"""
AUDIT = "audit small --data digits?n=60 --attack mean -n 5"
FIT = "fit small --data digits?n=60 --at relu1"
CASES = {
    "lst": "Did you mean 'list'",
    "bundle sho x": "Did you mean 'show'",
    f"{AUDIT} --out file": "expected a folder for the results, got the file file",
    f"{AUDIT} --out kept --cache file": "expected a folder for the results, got the file file",
    f"{AUDIT} --out a --at ,": "expected names of cuts for --at, got ','",
    f"{AUDIT} --out a --seed -1": "Invalid value for '--seed'",
    f"{AUDIT} --out a --seeds x": "for --seeds, got 'x'",
    "audit small --data digits?n=60 -n 5 --out a --suite smok": "Did you mean 'smoke'",
    f"{AUDIT} --out a --knows everything": "unknown grant",
    f"{FIT} --out file": "file is a file",
    f"{FIT} --out . --epochs 0": "expected a folder with a name",
    f"{FIT} --out f --epochs 1 --lr -1": "expected a learning rate above 0, got -1",
    f"{FIT} --out f --epochs 1 --lr nan": "expected a learning rate above 0, got nan",
    f"{FIT} --out f --seed -5": "Invalid value for '--seed'",
    "plan small --data digits?n=300 --out p --cuts ,": "expected names of cuts for --cuts",
    "plan small --data digits?n=300 --out p --minutes nan": "minutes above 0",
    "plan small --data digits?n=300 --out p --max-ssim nan": "expected a limit",
    f"{AUDIT} --out a --accelerator gpu": "expected auto, cpu, cuda, cuda:1 or mps for --accelerator, got 'gpu'",
    f"{FIT} --out f --accelerator cuda:x": "for --accelerator, got 'cuda:x'; use --accelerator auto",
    "plan small --data digits?n=300 --out p --accelerator cuda:99": "for --accelerator cuda:99, got",
    "compare small --data digits?n=60 --at relu1 --defense noise --out c --accelerator gpu": "got 'gpu'",
    "cuts small --input 3x0x4": "expected --input as CxHxW",
}


def test_every_wrong_value_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    lines = "".join("\t".join(words.split(" ")) + "\n" for words in CASES)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=lines, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    told = done.stderr.split("begin\n")[1:]
    assert len(told) == len(CASES), done.stderr
    for (words, said), text in zip(CASES.items(), told, strict=True):
        assert "Traceback" not in text, words
        assert said in text, words
        assert text.endswith("code 2\n"), (words, text)
    assert sorted(p.name for p in tmp_path.iterdir()) in (["file"], ["file", "kept"]), "nothing was begun"


@pytest.mark.parametrize("words", ["serve file", "serve nowhere", "profile nowhere", "report nowhere"])
def test_commands_of_a_device_alike(words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = subprocess.run(
        [sys.executable, "-m", "splitveil", *words.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["cuts", b"caf\xe9.py:make"], ["fit", "small", "--data", "digits", "--out", b"\xe9"]]
)
def test_words_that_are_no_text_are_refused_before_any_work(words: list[str | bytes], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "splitveil", *words], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: expected words in UTF-8, got b'")
    assert done.stderr.count(b"\n") == 1
    assert not list(tmp_path.iterdir())
