"""Jobs that a worker can import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splitveil.lab.jobs import Job, Leaving
from splitveil.lab.store import Facts, Kept


@dataclass(frozen=True)
class Named(Facts):
    what: str

    @property
    def label(self) -> str:
        return self.what


def doubled(x: Tensor, folder: Path | None) -> Kept:
    return f"[{torch.get_num_threads()}]", {"x": 2 * x}


def pid(_: Path | None) -> Kept:
    return str(os.getpid()), {}


def broken(_: Path | None) -> Kept:
    raise ValueError("this one cannot be done")


def killed_once(folder: Path | None) -> Kept:
    assert folder is not None
    if not (mark := folder / "seen").exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return '"went on"', {}


def killed_always(_: Path | None) -> Kept:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def job(what: str, call: Any, *args: Any, needs: tuple[Job, ...] = ()) -> Job:
    return Job(facts=Named(what), call=call, args=args, needs=needs)


def leaving(x: Tensor, _: Path | None) -> Leaving:
    return Leaving(("{}", {}), {"x": 3 * x})


def added(left: dict[str, Tensor] | None, _: Path | None) -> Kept:
    return str(int((left or {"x": 3 * torch.arange(100_000)})["x"].sum())), {}


def slow(left: dict[str, Tensor] | None, folder: Path | None) -> Kept:
    time.sleep(0.7)
    return added(left, folder)
