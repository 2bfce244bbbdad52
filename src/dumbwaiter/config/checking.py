"""Checking one value: its name, its type, its unit; and relative paths made absolute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from dumbwaiter.config.lines import Keys
from dumbwaiter.config.meanings import meant
from dumbwaiter.config.scaling import ScalingSettings
from dumbwaiter.config.settings import TABLES, ModelSettings, Settings
from dumbwaiter.config.units import WORDS, in_units, parse_duration, parse_size
from dumbwaiter.errors import ConfigError
from dumbwaiter.message import MAX_QUEUE_NAME, SYSTEM_QUEUES, is_model_name, is_queue_name
from dumbwaiter.spelling import did_you_mean

_SCALING = ("scaling",)
"""The only table of settings within a model's."""


class Source(msgspec.Struct, frozen=True):
    """One layer of settings: where each value stands, and the folder that its relative paths belong to."""

    values: Mapping[Keys, Any]
    place: Callable[[Keys], str]
    folder: Path
    text: bool


def is_table(keys: Keys) -> bool:
    """Whether *keys* name a table of settings rather than one of them."""
    if keys[0] == "models":
        return len(keys) <= 2 or keys[2:] == _SCALING
    return keys[0] in TABLES and len(keys) == 1


def checked(source: Source, keys: Keys, value: Any) -> Any:
    """*value* as its setting's type, or ConfigError naming the place."""
    if keys[0] == "models" and len(keys) > 1 and (fault := fault_of_name(keys[1])) is not None:
        raise ConfigError(f"{source.place(keys)}: {fault}")
    if is_table(keys):
        if value == {}:
            return value
        raise ConfigError(f"{source.place(keys)}: {'.'.join(keys)} is a table of settings, not one value")
    owner, names = _owner_of(keys)
    first = names[0]
    if first not in owner or (len(names) > 1 and first != "parameters"):
        tables = (*TABLES, "models") if names == keys else ()
        near = did_you_mean(first, [*owner, *tables])
        raise ConfigError(f"{source.place(keys)}: unknown setting {'.'.join(keys)!r}{near}")
    if first == "parameters" and source.text:
        return _json_or_text(value)
    try:
        converted = meant(keys, _convert(value, owner[first], strict=not source.text))
    except ValueError as error:
        raise ConfigError(f"{source.place(keys)}: {'.'.join(keys)}: {error}") from None
    return _with_folder(keys, converted, source.folder)


def fault_of_name(model: str) -> str | None:
    """Why *model* cannot name a model; None where it can."""
    if not is_queue_name(model):
        allowed = f"letters, digits, '.', '_' and '-' (at most {MAX_QUEUE_NAME}), a letter or digit first"
        return f"{model!r} cannot name a model: use {allowed}"
    if not is_model_name(model):
        return f"{model!r} cannot name a model: names in {SYSTEM_QUEUES!r} are the system's own"
    return None


def _owner_of(keys: Keys) -> tuple[dict[str, Any], Keys]:
    """The settings among which ``keys`` ends, by name with their types, and the rest of the keys."""
    first = keys[0]
    if first == "models" and keys[2:3] == _SCALING and len(keys) > 3:
        return _types_of(ScalingSettings), keys[3:]
    if first == "models" and len(keys) > 2:
        return _types_of(ModelSettings), keys[2:]
    if first in TABLES and len(keys) > 1:
        return _types_of(TABLES[first]), keys[1:]
    top = _types_of(Settings)
    for table in ("home", "models", *TABLES):
        del top[table]
    return top, keys


def _types_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(struct, include_extras=True)


def _convert(value: Any, annotation: Any, *, strict: bool) -> Any:
    if isinstance(value, str) and annotation == list[str]:
        return [part.strip() for part in value.split(",") if part.strip()]
    given = value
    if isinstance(value, str) and (unit := _unit_of(annotation)):
        value = parse_duration(value) if unit == "duration" else parse_size(value)
    if get_origin(annotation) is Literal and value not in get_args(annotation):
        choices = get_args(annotation)
        raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}{did_you_mean(str(value), choices)}")
    try:
        return msgspec.convert(value, annotation, strict=strict)
    except msgspec.ValidationError:
        raise ValueError(f"expected {_in_words(annotation)}, not {given!r}") from None


_IN_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a table",
    list: "a list of texts",
    bool: "true or false",
}


def _in_words(annotation: Any) -> str:
    """What a setting of this type may be: ``a whole number from 0 to 65535``."""
    kind, *metas = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if get_origin(kind) in {Union, UnionType}:  # X | None: nobody can write None
        return _in_words(get_args(kind)[0])
    meta, unit = metas[0] if metas else msgspec.Meta(), _unit_of(annotation)
    words = WORDS[unit] if unit else _IN_WORDS.get(get_origin(kind) or kind, str(kind))
    most = "" if meta.le is None else f"at most {in_units(meta.le, unit)}"
    if meta.gt is not None:
        return f"{words}, above {meta.gt:g}{most and f' and {most}'}"
    if unit:
        return f"{words}{most and f', {most}'}"
    if meta.ge is None:
        return words
    return f"{words} from {meta.ge} {'on' if meta.le is None else f'to {in_units(meta.le)}'}"


def _unit_of(annotation: Any) -> str | None:
    for meta in getattr(annotation, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.extra:
            return str(meta.extra["unit"])
    return None


def _json_or_text(value: Any) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, TypeError):
        return value


_LOCATIONS = {
    *(("broker",), ("blobs",), ("slots",), ("ledgers",), ("footprints",), ("heartbeat",)),
    *(("gateway", "certfile"), ("gateway", "keyfile"), ("scaler", "certfile"), ("scaler", "keyfile")),
}


def _with_folder(keys: Keys, value: Any, folder: Path) -> Any:
    if keys in _LOCATIONS or (keys[0] == "models" and keys[2:] in {("weights",), ("project",)}):
        return anchored(value, folder)
    return value


def anchored(location: str, folder: Path) -> str:
    """*location* with a relative path made absolute below *folder*; other URLs and absolute paths stay."""
    scheme, colon, rest = location.partition(":")
    if not colon or "/" in scheme:
        return str(folder / Path(location).expanduser())
    if scheme not in {"sqlite", "file"} or rest.startswith("/"):
        return location
    return f"{scheme}:{folder / rest}"
