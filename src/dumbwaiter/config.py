"""Settings: dumbwaiter.toml, then DUMBWAITER_* variables, then flags; the later wins.

A wrong key or value raises ConfigError naming the place (file and line, variable or flag), the wrong thing and the
nearest right one. Relative paths belong to the folder of the file that holds them; those of variables and flags, to
the current folder. Durations are seconds or text such as "500ms", "30s", "2m"; sizes are bytes or "64KiB", "32MB".
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from dumbwaiter.errors import ConfigError

FILE_NAME = "dumbwaiter.toml"
PREFIX = "DUMBWAITER_"
#: Variables that are not settings: the path of the file, tracebacks on errors, and no skipped tests.
OTHER_VARIABLES = frozenset({"DUMBWAITER_CONFIG", "DUMBWAITER_DEBUG", "DUMBWAITER_REQUIRE_ALL"})

Keys = tuple[str, ...]
Seconds = Annotated[float, msgspec.Meta(ge=0, extra={"unit": "duration"})]
Nbytes = Annotated[int, msgspec.Meta(ge=0, extra={"unit": "size"})]
Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a gateway behaves; what each means stands at gateway.GatewayOptions."""

    host: str = "127.0.0.1"
    port: Port = 8080
    body_limit: Nbytes = 32 * 1024 * 1024
    header_limit: Nbytes = 32 * 1024
    default_patience: Seconds = 60.0
    max_patience: Seconds = 600.0
    claim_threshold: Nbytes = 256 * 1024
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 30.0
    idle_timeout: Seconds = 5.0
    max_connections: Count = 4096
    grace: Seconds = 30.0


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker behaves; what each means stands at worker.WorkerOptions."""

    grace: Seconds = 25.0
    claim_threshold: Nbytes = 256 * 1024
    max_nbytes_in_hand: Nbytes = 256 * 1024 * 1024
    receive_wait: Seconds = 20.0
    load_timeout: Seconds = 600.0


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One model; see models.contract.ModelSpec. *replicas* is how many worker processes ``serve`` starts for it."""

    target: str | None = None
    weights: str | None = None
    project: str | None = None
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=2048)] | None = None
    latency_target: Annotated[float | None, msgspec.Meta(extra={"unit": "duration"})] = None
    max_pixels: Count = 50_000_000
    timeout: Seconds = 120.0
    max_deliveries: Count = 3
    decode_threads: Count = 2
    replicas: Annotated[int, msgspec.Meta(ge=0)] = 1
    parameters: dict[str, Any] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, with paths made absolute. *home* is the project's folder: that of the file, or the current one."""

    broker: str = "sqlite:.dumbwaiter/queue.db"
    blobs: str = "file:.dumbwaiter/blobs"
    lock_duration: Annotated[float, msgspec.Meta(gt=0, extra={"unit": "duration"})] = 30.0
    log_format: Literal["auto", "human", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    gateway: GatewaySettings = GatewaySettings()
    worker: WorkerSettings = WorkerSettings()
    models: dict[str, ModelSettings] = {}
    home: str = "."


class Flag(msgspec.Struct, frozen=True):
    """A value given on the command line: *name* as typed (``--port``), *keys* of the setting, and its value."""

    name: str
    keys: Keys
    value: Any


class _Source(msgspec.Struct, frozen=True):
    """One layer of settings: where each value stands, and the folder that its relative paths belong to."""

    values: Mapping[Keys, Any]
    place: Callable[[Keys], str]
    folder: Path
    text: bool


def load_settings(
    path: str | Path | None = None, *, environ: Mapping[str, str] | None = None, flags: Iterable[Flag] = ()
) -> Settings:
    """Read the file (*path*, DUMBWAITER_CONFIG, or ./dumbwaiter.toml if there is one), the variables and the flags.

    Raises ConfigError for anything unknown or wrong, and when a file that was asked for does not exist.
    """
    environ = os.environ if environ is None else environ
    flags = list(flags)
    file = _find_file(path or environ.get("DUMBWAITER_CONFIG"))
    home = file.parent if file else Path.cwd()
    sources = [_from_file(file)] if file else []
    names = _model_names(source.values for source in sources)
    sources.append(_from_environ(environ, names | {flag.keys[1] for flag in flags if flag.keys[0] == "models"}))
    sources.append(_from_flags(flags))
    tree: dict[str, Any] = {"home": str(home)}
    for key in ("broker", "blobs"):
        tree[key] = anchored(getattr(Settings(), key), home)
    for source in sources:
        for keys, value in source.values.items():
            _insert(tree, keys, _checked(source, keys, value))
    given = {keys for source in sources for keys in source.values}
    if tree["broker"].startswith("memory:") and ("blobs",) not in given:
        tree["blobs"] = "memory:"
    return msgspec.convert(tree, Settings)


def place_in_file(keys: Keys, path: str | Path | None = None) -> str | None:
    """``FILE:LINE`` of a setting or table in the file that load_settings() reads; None if it is not in it."""
    file = _find_file(path or os.environ.get("DUMBWAITER_CONFIG"))
    line = _lines_of(file.read_text(encoding="utf-8")).get(keys) if file else None
    return f"{file}:{line}" if line else None


# --- sources ----------------------------------------------------------------


def _find_file(asked: str | Path | None) -> Path | None:
    file = Path(asked or FILE_NAME).absolute()
    if file.is_file():
        return file
    if asked:
        raise ConfigError(f"no settings file at {file}")
    return None


def _from_file(file: Path) -> _Source:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text: {error}") from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        number = line[1] if line else text.count("\n") + 1
        raise ConfigError(f"{file}:{number}: not valid TOML: {error}") from None
    lines = _lines_of(text)

    def place(keys: Keys) -> str:
        while keys not in lines and len(keys) > 1:
            keys = keys[:-1]
        return f"{file}:{lines.get(keys, 1)}"

    return _Source(_flatten(tree, place), place, file.parent, text=False)


def _from_environ(environ: Mapping[str, str], models: set[str]) -> _Source:
    spelled = {_folded(name): name for name in models}
    names: dict[Keys, str] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES or _is_from_kubernetes(name, value):
            continue
        keys = tuple(name[len(PREFIX) :].lower().split("__"))
        if keys[0] == "models" and len(keys) > 1:
            keys = ("models", spelled.get(_folded(keys[1]), keys[1]), *keys[2:])
        names[keys] = name
    values = {keys: environ[name] for keys, name in names.items()}
    return _Source(values, lambda keys: f"environment variable {names[keys]}", Path.cwd(), text=True)


def _from_flags(flags: Sequence[Flag]) -> _Source:
    names = {flag.keys: flag.name for flag in flags}
    return _Source({flag.keys: flag.value for flag in flags}, lambda keys: names[keys], Path.cwd(), text=True)


def _folded(name: str) -> str:
    """Variables can spell neither case nor dashes: MODELS__TEXT_EMBEDDING means a model named text-embedding."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _is_from_kubernetes(name: str, value: str) -> bool:
    # A Service named dumbwaiter puts DUMBWAITER_PORT=tcp://10.0.0.7:80 and the like into every pod beside it.
    linked = re.search(r"(?<!_)_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)$", name)
    return bool(linked) or re.match(r"(tcp|udp|sctp)://", value) is not None


def _model_names(layers: Iterable[Mapping[Keys, Any]]) -> set[str]:
    return {keys[1] for layer in layers for keys in layer if keys[0] == "models" and len(keys) > 1}


def _flatten(tree: Mapping[str, Any], place: Callable[[Keys], str]) -> dict[Keys, Any]:
    """Leaves by their keys. Tables of settings are walked into; a model's parameters stay whole."""
    flat: dict[Keys, Any] = {}

    def walk(table: Mapping[str, Any], keys: Keys) -> None:
        for name, value in table.items():
            here = (*keys, name)
            if not _is_table(here) or (len(here) > 1 and value == {}):  # a model of which nothing is said
                flat[here] = value
            elif isinstance(value, Mapping):
                walk(value, here)
            else:
                raise ConfigError(f"{place(here)}: {'.'.join(here)} is a table: write [{'.'.join(here)}]")

    walk(tree, ())
    return flat


def _is_table(keys: Keys) -> bool:
    return keys in {("gateway",), ("worker",), ("models",)} or (len(keys) == 2 and keys[0] == "models")


def _insert(tree: dict[str, Any], keys: Keys, value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"


def _lines_of(text: str) -> dict[Keys, int]:
    """The line on which each key of a valid TOML *text* stands. (tomllib does not tell.)"""
    lines: dict[Keys, int] = {}
    table: Keys = ()
    quotes = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not quotes:
            if header := re.match(rf"\s*\[+\s*({_DOTTED})\s*\]", line):
                table = _split_key(header[1])
                lines.setdefault(table, number)
            elif pair := re.match(rf"\s*({_DOTTED})\s*=", line):
                parts = _split_key(pair[1])
                for depth in range(1, len(parts) + 1):
                    lines.setdefault((*table, *parts[:depth]), number)
        for fence in re.findall(r"\"{3}|'{3}", line):
            quotes = fence if not quotes else "" if fence == quotes else quotes
    return lines


def _split_key(dotted: str) -> Keys:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, dotted))


# --- checking one value -----------------------------------------------------


def _checked(source: _Source, keys: Keys, value: Any) -> Any:
    """*value* as its setting's type, or ConfigError naming the place."""
    if _is_table(keys):
        if value == {}:
            return value
        raise ConfigError(f"{source.place(keys)}: {'.'.join(keys)} is a table of settings, not one value")
    owner, names = _owner_of(keys)
    first = names[0]
    if first not in owner or (len(names) > 1 and first != "parameters"):
        tables = ("gateway", "worker", "models") if names == keys else ()
        near = did_you_mean(first, [*owner, *tables])
        raise ConfigError(f"{source.place(keys)}: unknown setting {'.'.join(keys)!r}{near}")
    if first == "parameters" and source.text:
        return _json_or_text(value)
    try:
        converted = _convert(value, owner[first], strict=not source.text)
    except ValueError as error:
        raise ConfigError(f"{source.place(keys)}: {'.'.join(keys)}: {error}") from None
    return _with_folder(keys, converted, source.folder)


def _owner_of(keys: Keys) -> tuple[dict[str, Any], Keys]:
    """The settings among which ``keys`` ends, by name with their types, and the rest of the keys."""
    first = keys[0]
    if first == "models" and len(keys) > 2:
        return _types_of(ModelSettings), keys[2:]
    if first in {"gateway", "worker"} and len(keys) > 1:
        return _types_of(GatewaySettings if first == "gateway" else WorkerSettings), keys[1:]
    top = _types_of(Settings)
    for table in ("home", "gateway", "worker", "models"):
        del top[table]
    return top, keys


def _types_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(struct, include_extras=True)


def _convert(value: Any, annotation: Any, *, strict: bool) -> Any:
    if isinstance(value, str) and (unit := _unit_of(annotation)):
        value = parse_duration(value) if unit == "duration" else parse_size(value)
    if get_origin(annotation) is Literal and value not in get_args(annotation):
        choices = get_args(annotation)
        raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}{did_you_mean(str(value), choices)}")
    try:
        return msgspec.convert(value, annotation, strict=strict)
    except msgspec.ValidationError:
        raise ValueError(f"expected {_in_words(annotation)}, not {value!r}") from None


_WORDS = {int: "a whole number", float: "a number", str: "a text", dict: "a table", bool: "true or false"}
_UNITS = {"duration": "a duration such as 500ms, 30s, 2m or 1h", "size": "a size such as 512, 100kB or 32MiB"}


def _in_words(annotation: Any) -> str:
    """What a setting of this type may be: ``a whole number from 0 to 65535``."""
    if get_origin(annotation) in {Union, UnionType}:  # X | None: nobody can write None
        return _in_words(get_args(annotation)[0])
    kind, *metas = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    meta = metas[0] if metas else msgspec.Meta()
    words = _UNITS.get(_unit_of(annotation) or "") or _WORDS.get(get_origin(kind) or kind, str(kind))
    if meta.gt is not None:
        return f"{words}, above {meta.gt:g}"
    if meta.ge is None or (meta.ge == 0 and _unit_of(annotation)):
        return words
    return f"{words} from {meta.ge} {'on' if meta.le is None else f'to {meta.le}'}"


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


def _with_folder(keys: Keys, value: Any, folder: Path) -> Any:
    if keys in {("broker",), ("blobs",)} or (keys[0] == "models" and keys[2:] in {("weights",), ("project",)}):
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


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """``; did you mean 'port'?`` or nothing when nothing is near."""
    near = difflib.get_close_matches(wrong, list(right), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


# --- units ------------------------------------------------------------------

_DURATIONS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_duration(text: str) -> float:
    """Seconds of ``"1.5"``, ``"500ms"``, ``"30s"``, ``"2m"``, ``"1h"``. Raises ValueError."""
    return _quantity(text, _DURATIONS, _UNITS["duration"])


def parse_size(text: str) -> int:
    """Bytes of ``"512"``, ``"100kB"``, ``"32MiB"``. Raises ValueError."""
    return round(_quantity(text, _SIZES, _UNITS["size"]))


def _quantity(text: str, units: Mapping[str, float], wanted: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"expected {wanted}, not {text!r}")
    return float(match[1]) * units[match[2].lower()]
