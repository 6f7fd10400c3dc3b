"""The command line as a user meets it."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
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
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.cli.imported"])
        told = [self.folder / f".{name}" for name in ("stdout", "stderr")]
        process = context.Process(target=_command, args=(list(map(str, words)), self.folder, told, dict(os.environ)))
        process.start()
        process.join()
        out, err = (path.read_text() for path in told)
        for path in told:
            path.unlink()
        return Done(process.exitcode or 0, out, err)

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "splitveil", *map(str, words)]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _command(words: list[str], folder: Path, told: list[Path], environment: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(told, 1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
    sys.argv = ["splitveil", *words]
    from splitveil.cli import main

    main()


@pytest.fixture
def splitveil(tmp_path: Path) -> Command:
    return Command(tmp_path)
