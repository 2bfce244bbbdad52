"""Reading the layers: the file, the variables, the flags. The later wins."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dumbwaiter.config.checking import Source, anchored, checked, is_table
from dumbwaiter.config.lines import Keys, lines_of
from dumbwaiter.config.settings import Settings
from dumbwaiter.errors import ConfigError

FILE_NAME = "dumbwaiter.toml"
PREFIX = "DUMBWAITER_"
#: Variables that are not settings: a client's key, the path of the file, tracebacks on errors.
OTHER_VARIABLES = frozenset(f"{PREFIX}{name}" for name in ("API_KEY", "CONFIG", "DEBUG"))


class Flag(msgspec.Struct, frozen=True):
    """A value given on the command line: *name* as typed (``--port``), *keys* of the setting, and its value."""

    name: str
    keys: Keys
    value: Any


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
    for key in ("broker", "blobs", "slots", "footprints"):
        tree[key] = anchored(getattr(Settings(), key), home)
    for source in sources:
        for keys, value in source.values.items():
            _insert(tree, keys, checked(source, keys, value))
    given = {keys for source in sources for keys in source.values}
    if tree["broker"].startswith("memory:") and ("blobs",) not in given:
        tree["blobs"] = "memory:"
    _give_scaling(tree, sources)
    return msgspec.convert(tree, Settings)


def _give_scaling(tree: dict[str, Any], sources: Sequence[Source]) -> None:
    """A model has its own settings, or else the common ones. Raises ConfigError for bounds that cross."""
    common = tree.get("scaling", {})
    _check_bounds(common, [("scaling", "min_replicas")], sources)
    for name, model in tree.get("models", {}).items():
        model["scaling"] = {**common, **model.get("scaling", {})}
        places = [("models", name, "scaling", "min_replicas"), ("scaling", "min_replicas")]
        _check_bounds(model["scaling"], places, sources)


def _check_bounds(scaling: Mapping[str, Any], places: Sequence[Keys], sources: Sequence[Source]) -> None:
    """*places*: the keys that may have given the least number, the first that did has."""
    least, most = scaling.get("min_replicas", 0), scaling.get("max_replicas")
    if most is None or least <= most:
        return
    told = [(keys, source) for keys in places for source in reversed(sources) if keys in source.values]
    keys, source = told[0]
    raise ConfigError(f"{source.place(keys)}: {'.'.join(keys)}: {least} is more than max_replicas, which is {most}")


def place_in_file(keys: Keys, path: str | Path | None = None) -> str | None:
    """``FILE:LINE`` of a setting or table in the file that load_settings() reads; None if it is not in it."""
    file = _find_file(path or os.environ.get("DUMBWAITER_CONFIG"))
    line = lines_of(file.read_text(encoding="utf-8")).get(keys) if file else None
    return f"{file}:{line}" if line else None


# --- sources ----------------------------------------------------------------


def _find_file(asked: str | Path | None) -> Path | None:
    file = Path(asked or FILE_NAME).absolute()
    if file.is_file():
        return file
    if asked:
        raise ConfigError(f"no settings file at {file}")
    return None


def _from_file(file: Path) -> Source:
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
    lines = lines_of(text)

    def place(keys: Keys) -> str:
        while keys not in lines and len(keys) > 1:
            keys = keys[:-1]
        return f"{file}:{lines.get(keys, 1)}"

    return Source(_flatten(tree, place), place, file.parent, text=False)


def _from_environ(environ: Mapping[str, str], models: set[str]) -> Source:
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
    return Source(values, lambda keys: f"environment variable {names[keys]}", Path.cwd(), text=True)


def _from_flags(flags: Sequence[Flag]) -> Source:
    names = {flag.keys: flag.name for flag in flags}
    return Source({flag.keys: flag.value for flag in flags}, lambda keys: names[keys], Path.cwd(), text=True)


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
            if not is_table(here) or (len(here) > 1 and value == {}):  # a model of which nothing is said
                flat[here] = value
            elif isinstance(value, Mapping):
                walk(value, here)
            else:
                raise ConfigError(f"{place(here)}: {'.'.join(here)} is a table: write [{'.'.join(here)}]")

    walk(tree, ())
    return flat


def _insert(tree: dict[str, Any], keys: Keys, value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value
