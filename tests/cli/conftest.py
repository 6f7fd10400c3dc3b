"""The command line as a user meets it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """``splitveil ...`` as a process in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str | Path) -> Done:
        command = [sys.executable, "-m", "splitveil", *map(str, words)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "splitveil", *map(str, words)]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def splitveil(tmp_path: Path) -> Command:
    return Command(tmp_path)
