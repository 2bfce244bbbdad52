"""Logging: one line per event on stderr, for people on a terminal and as JSON for machines. Standard library only.

Extra facts go beside the text: ``log.info("model loaded", extra={"model": "infer", "seconds": 1.2})``.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any, TextIO

import msgspec

from dumbwaiter.printable import printable

_OURS = logging.getLogger("dumbwaiter")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


def configure_logging(*, level: str = "info", log_format: str = "auto", stream: TextIO | None = None) -> None:
    """Send the logs of this process to *stream* (stderr). *log_format* is auto, human or json.

    ``auto`` is human on a terminal and human without colours elsewhere. *level* debug is for what dumbwaiter itself
    logs; of the others come only INFO and above. Calling it again replaces the set-up.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    formatter = JsonFormatter() if log_format == "json" else HumanFormatter(colours=handler.stream.isatty())
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Client libraries write session tokens, passwords and whole bodies to their debug logs: ours alone are asked for.
    _OURS.setLevel(root.level if root.level < logging.INFO else logging.NOTSET)
    root.setLevel(max(logging.INFO, root.level))
    # Whatever the level: these say little of interest to whoever runs dumbwaiter.
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, root.level))


def extras_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was passed as ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, the extras, and exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in extras_of(record).items():
            event.setdefault(name, value)
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(event, enc_hook=str).decode()
        except UnicodeEncodeError:  # a file name, say, that is not UTF-8
            return json.dumps({name: str(value) for name, value in event.items()})


class HumanFormatter(logging.Formatter):
    """``12:03:04 INFO worker: model loaded model=infer``; tracebacks follow only where debug logs are on."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        time = dt.datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = record.levelname
        if self._colours:
            level = f"\x1b[{_COLOURS.get(level, '0')}m{level}\x1b[0m"
        text = f"{time} {level} {record.name.removeprefix('dumbwaiter.')}: {_one_line(record.getMessage())}"
        extras = extras_of(record)
        traceback = extras.pop("traceback", "")
        for name, value in extras.items():
            text += f" {name}={_one_line(str(value))}"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f" ({_one_line(f'{type(error).__name__}: {error}')})"
            traceback = traceback or self.formatException(record.exc_info)
        if traceback and _OURS.isEnabledFor(logging.DEBUG):
            return f"{text}\n{printable(traceback, keep_lines=True)}"
        return text


def _one_line(text: str) -> str:
    return printable(" ".join(text.splitlines()))
