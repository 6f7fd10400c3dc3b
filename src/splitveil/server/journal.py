"""Logs as JSON, one object a line, for machines that read them."""

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

FIELDS = ("protocol", "reason", "rule", "milliseconds")


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


def log_as_json(stream: TextIO | None = None) -> logging.Handler:
    """Send every log of this process as JSON to `stream`, standard error by default; the handler, to take it away."""
    return _logged(JsonLines(), stream)


def log_as_text(stream: TextIO | None = None) -> logging.Handler:
    """The same as plain lines."""
    return _logged(logging.Formatter("%(asctime)s %(levelname)s %(message)s"), stream)


def _logged(form: logging.Formatter, stream: TextIO | None) -> logging.Handler:
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(form)
    logging.getLogger().addHandler(handler)
    logging.getLogger("splitveil").setLevel(logging.INFO)
    return handler
