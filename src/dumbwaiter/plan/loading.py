"""Traces from files: our own CSV, JSON lines as in logs, and the per-invocation traces of Azure Functions of 2021.

CSV has a header. Its columns: ``arrival`` (or ``time``) in seconds or as a date and time; and of these, whichever are
known: ``model``; ``service``, the seconds that the input takes alone; ``size`` (or ``nbytes``) of its body in bytes.
Azure's are ``app,func,end_timestamp,duration``: a request came when it ended less how long it took.

What a file holds tells what it is, whatever its name. Among JSON lines there may be others, as in a log to which
several processes write; how many were passed over is logged as a warning.
"""

from __future__ import annotations

import csv
import datetime as dt
import logging
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dumbwaiter.errors import ConfigError
from dumbwaiter.plan.bounds import LONGEST_SERVICE, check_requests
from dumbwaiter.plan.services import GREATEST, Inputs
from dumbwaiter.plan.traces import Trace, in_order
from dumbwaiter.spelling import did_you_mean

_FARTHEST = 1e12
"""Seconds from 1970, either way. Beyond it, floating point cannot tell milliseconds apart."""
_MOST = {"service": LONGEST_SERVICE, "duration": LONGEST_SERVICE, "size": GREATEST, "nbytes": GREATEST}
_ARRIVAL = ("arrival", "time", "end_timestamp")

_LONGEST_SAID = 60
_ENDINGS = {".jsonl", ".json", ".log", ".ndjson"}
_HEAD = 1000
"""Lines among which a JSON object is looked for, to know what the file is."""

_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(slots=True)
class _Columns:
    arrivals: array[float] = field(default_factory=lambda: array("d"))
    services: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[float] = field(default_factory=lambda: array("d"))
    """NaN where nothing is said."""


@dataclass(slots=True)
class _Others:
    """Lines of a log that are no JSON objects, and those that are but tell of no request."""

    count: int = 0
    first: int = 0
    has_news: bool = False

    def add(self, number: int) -> None:
        """Line *number* is no JSON object."""
        self.count += 1
        self.first = self.first or number

    def __str__(self) -> str:
        if self.count == 1:
            return f"line {self.first} is no JSON object"
        return f"{self.count:,} lines are no JSON objects, the first of them line {self.first}"


def load(path: Path, inputs: Inputs, *, as_one: bool = False) -> dict[str, Trace]:
    """The traces in *path*, by model; of Azure's, by function; or all *as_one*, by the file's name.

    Where the file does not say how long an input takes, *inputs* do, drawn from a seed of 0. Raises ConfigError, which
    names file and line.
    """
    others = _Others()
    try:
        columns = _read(path, path.name if as_one else None, others)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a trace: {error}") from error
    if not columns:
        raise ConfigError(_empty(path, others))
    if others.count:
        _log.warning("%s: %s; passed over", path, others)
    return {model: _trace(model, one, inputs) for model, one in sorted(columns.items())}


def _empty(path: Path, others: _Others) -> str:
    said = f"{path} holds no requests{f': {others}' if others.count else ''}"
    if others.count or others.has_news:
        wanted = 'log_format = "json" and gateway.log_requests = true'
        return f"{said}; a gateway's log holds them where the settings have {wanted}"
    return f"{said}; give a file with a line for each, or --generate one"


def _read(path: Path, as_model: str | None, others: _Others) -> dict[str, _Columns]:
    found: dict[str, _Columns] = {}
    for count, (number, row) in enumerate(_rows(path, others), 1):
        check_requests(str(path), count)
        where = f"{path}:{number}"
        arrival, service = _moment(row, where), _number(row, ("service", "duration"), where)
        if "end_timestamp" in row:
            arrival -= service
        name = (
            as_model
            or row.get("model")
            or "/".join(str(row[one]) for one in ("app", "func") if row.get(one))
            or "model"
        )
        columns = found.setdefault(str(name), _Columns())
        columns.arrivals.append(arrival)
        columns.services.append(service)
        columns.sizes.append(_number(row, ("size", "nbytes"), where))
    return found


def _rows(path: Path, others: _Others) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = list(islice(file, _HEAD))
        lines = chain(head, file)
        if _is_json(path, head):
            yield from _json_rows(path, lines, others)
        else:
            yield from _csv_rows(path, lines)


def _is_json(path: Path, head: Sequence[str]) -> bool:
    """Whether the file that begins with the lines *head* is no CSV of requests, but JSON lines."""
    names = {name.strip() for name in next(csv.reader(head, skipinitialspace=True), ())}
    if names & set(_ARRIVAL):
        return False
    return path.suffix in _ENDINGS or any(line.lstrip().startswith("{") for line in head)


def _csv_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(lines, skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    if not set(names) & set(_ARRIVAL):
        hint = next((said for name in names if (said := did_you_mean(name, _ARRIVAL))), "")
        said = ", ".join(names) or "nothing"
        raise ConfigError(f"{path}:1 names no column arrival, time or end_timestamp, but {said}{hint}")
    if "end_timestamp" in names and "duration" not in names:
        raise ConfigError(f"{path}:1 has end_timestamp but no duration, so nobody knows when requests came")
    for row in reader:
        yield reader.line_num, row


def _json_rows(path: Path, lines: Iterable[str], others: _Others) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _decode(line)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            # One that was meant to be an object may be a request, which nobody should lose.
            if line.startswith('{"'):
                raise ConfigError(f"{path}:{number} is no JSON object: {error}") from error
            others.add(number)
            continue
        if "message" in row and not {"nbytes", "size"} & row.keys():
            others.has_news = True
            continue
        yield number, row


def _moment(row: Mapping[str, Any], where: str) -> float:
    for name in _ARRIVAL:
        value = row.get(name)
        if value in (None, ""):
            continue
        try:
            moment = float(str(value))
        except ValueError:
            try:
                moment = dt.datetime.fromisoformat(str(value)).timestamp()
            except (ValueError, OverflowError):
                text = f"{where}: {name} {_said(value)} is neither seconds nor a date and time such as"
                raise ConfigError(f"{text} 2026-01-31T12:00:00Z") from None
        if abs(moment) <= _FARTHEST:
            return moment
        raise ConfigError(f"{where}: {name} {_said(value)} is no moment; it is at most {_FARTHEST:g} s from 0")
    raise ConfigError(f"{where} does not say when the request came; its column arrival is empty")


def _number(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> float:
    for name in names:
        value = row.get(name)
        if value in (None, ""):
            continue
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not 0.0 <= number <= _MOST[name]:
            raise ConfigError(f"{where}: {name} {_said(value)} is no number from 0 to {_MOST[name]:.15g}")
        return number
    return math.nan


def _said(value: Any) -> str:
    text = repr(str(value))
    return text if len(text) <= _LONGEST_SAID else f"{text[:_LONGEST_SAID]}…"


def _trace(model: str, columns: _Columns, inputs: Inputs) -> Trace:
    arrivals, services, sizes = (np.array(one) for one in (columns.arrivals, columns.services, columns.sizes))
    start = arrivals.min()
    drawn, drawn_nbytes = inputs.drawn(np.random.default_rng([0, 1]), arrivals - start, float(np.ptp(arrivals)))
    has_size, has_service = np.isfinite(sizes), np.isfinite(services)
    nbytes = np.where(has_size, np.nan_to_num(sizes), drawn_nbytes).astype(np.int64)
    alone = np.maximum(np.nan_to_num(services) - inputs.curve.fixed, 0.0)
    each = np.where(has_service, alone, np.where(has_size, inputs.of_sizes(nbytes), drawn))
    return in_order(model, arrivals, each, nbytes)
