"""Logs as JSON, one object a line, for machines that read them."""

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TextIO

FIELDS = ("protocol", "reason", "rule", "milliseconds")
KINDS = 256
"""Of records that are told apart; more share one."""


class JsonLines(logging.Formatter):
    """``{"time": ..., "level": ..., "logger": ..., "message": ...}`` and what the server adds of a request: `FIELDS`.

    Of an exception it keeps the type and the places in the code, not the message, which may quote what it worked on.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            line["exception"] = record.exc_info[0].__name__
            line["where"] = [f"{frame.filename}:{frame.lineno}" for frame in frames]
        return json.dumps(line, ensure_ascii=False)


class Lines(logging.Formatter):
    """Plain lines, one a record: what controls a terminal is escaped, since names in bundles are others' words."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Without the traceback, which has lines of its own."""
        return "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().formatMessage(record)
        )


class Quiet(logging.Filter):
    """Of records of one kind lets `burst` pass at once and `rate` a second from then on, and tells how many it hid.

    A stranger who can make a server write a line can else make it fill a disk. A kind is a logger, a level, the
    beginning of the words before values are put in, and the reason where there is one. Metrics count what logs hide.
    """

    def __init__(self, burst: int = 20, rate: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst, self._rate, self._clock = burst, rate, clock
        self._kinds: dict[tuple[object, ...], tuple[float, float, int]] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is written."""
        words = str(record.msg).partition("\n")[0][:60]
        kind: tuple[object, ...] = (record.name, record.levelno, words, getattr(record, "reason", None))
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= KINDS:
                kind = (record.levelno,)
            now = self._clock()
            left, since, hidden = self._kinds.get(kind, (float(self._burst), now, 0))
            left = min(self._burst, left + (now - since) * self._rate)
            passes = left >= 1
            self._kinds[kind] = (left - 1, now, 0) if passes else (left, now, hidden + 1)
        if passes and hidden:
            record.msg, record.args = f"{record.getMessage()} ({hidden} more like this were not written)", None
        return passes


def log_as_json(stream: TextIO | None = None) -> logging.Handler:
    """Send every log of this process as JSON to `stream`, standard error by default; the handler, to take it away."""
    return _logged(JsonLines(), stream)


def log_as_text(stream: TextIO | None = None) -> logging.Handler:
    """The same as plain lines."""
    return _logged(Lines(), stream)


def _logged(form: logging.Formatter, stream: TextIO | None) -> logging.Handler:
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(form)
    handler.addFilter(Quiet())
    logging.getLogger().addHandler(handler)
    logging.getLogger("splitveil").setLevel(logging.INFO)
    return handler
