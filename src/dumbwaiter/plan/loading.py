"""Traces from files: our own CSV, JSON lines as in logs, and the per-invocation traces of Azure Functions of 2021.

CSV has a header. Its columns: ``arrival`` (or ``time``) in seconds or as a date and time; and of these, whichever are
known: ``model``; ``service``, the seconds that the input takes alone; ``size`` (or ``nbytes``) of its body in bytes.
Azure's are ``app,func,end_timestamp,duration``: a request came when it ended less how long it took.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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

_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(slots=True)
class _Columns:
    arrivals: array[float] = field(default_factory=lambda: array("d"))
    services: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[float] = field(default_factory=lambda: array("d"))
    """NaN where nothing is said."""


def load(path: Path, inputs: Inputs, *, as_one: bool = False) -> dict[str, Trace]:
    """The traces in *path*, by model; of Azure's, by function; or all *as_one*, by the file's name.

    Where the file does not say how long an input takes, *inputs* do, drawn from a seed of 0. Raises ConfigError, which
    names file and line.
    """
    try:
        columns = _read(path, path.name if as_one else None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a trace: {error}") from error
    if not columns:
        raise ConfigError(f"{path} holds no requests; give a file with a line for each, or --generate one")
    return {model: _trace(model, one, inputs) for model, one in sorted(columns.items())}


def _read(path: Path, as_model: str | None) -> dict[str, _Columns]:
    found: dict[str, _Columns] = {}
    for count, (number, row) in enumerate(_rows(path), 1):
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


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix in {".jsonl", ".json", ".log", ".ndjson"}:
            yield from _json_rows(path, file)
            return
        reader = csv.DictReader(file, skipinitialspace=True)
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


def _json_rows(path: Path, file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = _decode(line)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ConfigError(f"{path}:{number} is no JSON object: {error}") from error
        if "message" in row and not {"nbytes", "size"} & row.keys():
            continue  # a log tells of other things too
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
