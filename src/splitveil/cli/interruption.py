"""Commands that are told to stop: Ctrl-C, SIGTERM and a closed terminal end alike, and say how to go on."""

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType

RESUMED = ("audit", "compare", "plan", "fit")
"""Commands with ``--resume``."""
OWN = ("serve",)
"""Commands with a drain of their own (`splitveil.server.lifecycle`)."""
INTERRUPTED = 128 + signal.SIGINT

_told: list[int] = []
_early: list[int] = []


def listen(words: Sequence[str]) -> None:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that nothing is left half-written."""
    if words[:1] and words[0] in OWN:
        # Whoever changes a bundle may say so before the server listens for it, and means no end.
        signal.signal(signal.SIGHUP, _note)
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def again() -> None:
    """Send this process the SIGHUP that came before anybody listened for it, if one did."""
    if _early:
        _early.clear()
        os.kill(os.getpid(), signal.SIGHUP)


def exit_code() -> int:
    """130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + _told[0] if _told else INTERRUPTED


def parting(words: Sequence[str]) -> str:
    """What to say when the command of these words was stopped; empty where there is nothing to go on with."""
    if not words or words[0] in OWN:
        return ""
    if words[0] in RESUMED:
        again = shlex.join(["splitveil", *words, *(["--resume"] if "--resume" not in words else [])])
        return f"stopped; what had ended is kept, and --resume goes on from there: {again}"
    if words[0] == "demo":
        return "stopped; the demo cannot go on: start it anew with another --out, or delete its folder."
    return ""


def _note(number: int, frame: FrameType | None) -> None:
    _early.append(number)


def _stop(number: int, frame: FrameType | None) -> None:
    _told.append(number)
    raise KeyboardInterrupt


def say_parting(words: Sequence[str]) -> None:
    """On standard error, on a line of its own."""
    if text := parting(words):
        print(f"\n{text}" if sys.stderr.isatty() else text, file=sys.stderr)
