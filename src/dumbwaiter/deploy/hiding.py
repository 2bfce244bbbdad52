"""What of the settings may be secret and so is not rendered, and through which variable it is given instead. Pure.

A parameter of a model is held back if it came from a variable, or if it is a text whose name says that it is secret
(``hf_token``, ``PGPASSWORD``), or the name of a table or list around it does, or that has a secret in it: a URL with a
user, ``AccountKey=...``. Rather a text too many is held back than a secret shown. Everything else stands in the files
as it stands in dumbwaiter.toml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from dumbwaiter.config import Settings
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown, without_user

_SECRET = re.compile(
    r".*(auth|authori[sz]ation|pass|(credential|passcode|passphrase|passwd|password|pwd|secret|token)s?"
    r"|conn(ection)?[^A-Za-z0-9]?str(ing)?"
    r"|(access|account|aes|api|auth|deploy|encryption|hmac|jwt|license|master|private|rsa|secret|shared|signing|ssh"
    r"|subscription|webhook)[^A-Za-z0-9]?keys?([^A-Za-z0-9]?(base|id))?)([^A-Za-z0-9]?v?[0-9]+)?",
    re.IGNORECASE | re.DOTALL,
)
"""Glued to what stands before, too (``dbpassword``)."""
_HARMLESS = re.compile(
    r"(additional_?)?(bad|bos|cls|end|eos|image|mask|pad|sep|special|start|stop|suppress|unk)_?tokens?"
    r"|(.*[^A-Za-z0-9])?(max|min|n|num)([^A-Za-z0-9].*)?[^A-Za-z0-9]tokens"
    r"|(.*[^A-Za-z0-9])?((by|com|encom|over|sur|tres|under)pass"
    r"|(all|band|high|low|backward|first|forward|multi|one|second|single|two)[^A-Za-z0-9]?pass([^A-Za-z0-9]?v?[0-9]+)?)",
    re.IGNORECASE | re.DOTALL,
)
"""What language models call their marks and how many there are, and filters their bands; and words."""
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_GIVEN = re.compile(
    r"((account|api|shared_?access)[_-]?key|authori[sz]ation|passw(or)?d|pwd|secret|shared_?access_?signature"
    r"|\bsig)\s*=\s*[^\s;&]|---- ?BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)? ?----",
    re.IGNORECASE,
)
"""A secret within a text: of a connection string, a query, or the file of a key."""
_SPELLED = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
"""What a variable can name: two lines below each other stand between two names."""
_PREFIX = "DUMBWAITER_MODELS__"
_ENV = "DUMBWAITER_KUBERNETES__ENV"
Keys = tuple[str, ...]


class Hidden(NamedTuple):
    """A *setting* that is not rendered, the *variable* that must have its value there, and whose *model* needs it."""

    setting: str
    variable: str
    model: str | None = None


def looks_secret(name: str, value: Any) -> bool:
    """Whether *value*, called *name*, may be one that nobody else should read."""
    return isinstance(value, str) and bool(value) and (_is_named_secret(name) or _has_secret(value))


def check_url(what: str, url: str | None, instead: str) -> None:
    """Raises ConfigError where *url* has a user, or something behind a ``?``, and so would show it to all readers."""
    if url is not None and shown(url) != url:
        raise ConfigError(
            f"{what}: {shown(url)} has a user, a password or something behind a ?, which may be secret and would be"
            f" rendered; write it without, {instead}"
        )


def check_urls(settings: Settings) -> None:
    """Raises ConfigError for a blob store or weights whose URL may hold something secret."""
    instead = "for credentials and endpoints come from the store's own variables (docs/stores.md)"
    check_url("blobs", settings.blobs, instead)
    for name, model in settings.models.items():
        check_url(f"models.{name}.weights", model.weights, instead)


def without_secrets(settings: Settings, environ: Mapping[str, str]) -> tuple[Settings, list[Hidden]]:
    """*settings* without those parameters of models that may be secret, and what was left out.

    *environ* are the variables from which settings were read. Raises ConfigError for what no variable can give.
    """
    models, hidden = dict(settings.models), list[Hidden]()
    given = {_folded(name) for name in environ if name.startswith(_PREFIX)}
    for name, model in settings.models.items():
        kept = _without(model.parameters, name, (), given, hidden)
        if not isinstance(kept, dict):  # all of them came from one variable
            kept = {}
        models[name] = msgspec.structs.replace(model, parameters=kept)
    _check_distinct(settings, hidden)
    return msgspec.structs.replace(settings, models=models), hidden


def hidden_environment(env: Sequence[str], environ: Mapping[str, str]) -> tuple[list[str], list[Hidden]]:
    """*env* (each ``NAME=value``) without what may be secret, and what was left out."""
    kept, hidden = list[str](), list[Hidden]()
    for text in env:
        name, _, value = text.partition("=")
        if _ENV in environ or looks_secret(name, value):
            hidden.append(Hidden("kubernetes.env", name))
        else:
            kept.append(text)
    return kept, hidden


def told(hidden: Sequence[Hidden]) -> Iterator[str]:
    """A line on each."""
    for setting, variable, _ in hidden:
        place = f"`{setting}`" if setting.startswith("models.") else f"`{variable}` of `{setting}`"
        yield f"{place} may be secret and is not rendered; the variable `{variable}` gives it there"


def of_model(hidden: Sequence[Hidden], model: str) -> list[Hidden]:
    """What the workers of *model* need."""
    return [each for each in hidden if each.model == model]


def _is_named_secret(name: str) -> bool:
    spelled = _HUMP.sub("_", name)
    return _SECRET.fullmatch(spelled) is not None and not _HARMLESS.fullmatch(spelled)


def _has_secret(text: str) -> bool:
    urls = _URL.findall(text)
    if urls == [text.strip()]:
        return shown(urls[0]) != urls[0] or _GIVEN.search(text) is not None
    # In the midst of a text a ? is the sentence's own.
    return any(without_user(url) != url for url in urls) or _GIVEN.search(text) is not None


def _is_hidden(path: Keys, value: Any) -> bool:
    """Whether the parameter at *path* may be secret. A list is so as a whole, for no variable names its members."""
    named = any(map(_is_named_secret, path))
    if isinstance(value, str):
        return bool(value) and (named or _has_secret(value))
    return named and isinstance(value, list | tuple) and not all(isinstance(one, int | float) for one in value)


class _Nothing:
    """In place of what is left out."""


def _without(value: Any, model: str, path: Keys, given: set[str], hidden: list[Hidden]) -> Any:
    """*value* of the parameter at *path*, without what is hidden in it."""
    variable = _variable(model, path)
    if _folded(variable) in given or _is_hidden(path, value):
        _check_spelled(model, path)
        hidden.append(Hidden(_setting(model, path), variable, model))
        return _Nothing
    if isinstance(value, Mapping):
        found = {name: _without(inner, model, (*path, str(name)), given, hidden) for name, inner in value.items()}
        return {name: inner for name, inner in found.items() if inner is not _Nothing}
    if isinstance(value, list | tuple):
        return [_without(inner, model, (*path, f"[{number}]"), given, hidden) for number, inner in enumerate(value)]
    return value


def _setting(model: str, path: Keys) -> str:
    return ".".join(("models", model, "parameters", *path))


def _variable(model: str, path: Keys) -> str:
    return "__".join((f"{_PREFIX}{re.sub(r'[^a-z0-9]', '_', model.lower())}", "PARAMETERS", *path)).upper()


def _folded(variable: str) -> str:
    """Variables can spell neither case nor dashes in a model's name, and are read so."""
    model, mark, rest = variable.removeprefix(_PREFIX).lower().partition("__parameters")
    return re.sub(r"[^a-z0-9]", "_", model) + mark + rest


def _check_spelled(model: str, path: Keys) -> None:
    if not all(_SPELLED.fullmatch(name) for name in path) or "__" in _variable(model, ()).removeprefix(_PREFIX)[:-12]:
        raise ConfigError(
            f"{_setting(model, path)} may be secret, so it is not rendered, and no variable can give it: that names"
            " tables, small letters, digits and single underscores only; rename it"
        )


def _check_distinct(settings: Settings, hidden: Sequence[Hidden]) -> None:
    """One variable must not mean two models."""
    for each in hidden:
        start = _variable(each.model or "", ())
        same = [name for name in settings.models if _variable(name, ()) == start]
        if len(same) > 1:
            raise ConfigError(
                f"{each.setting} may be secret, so a variable must give it, and {each.variable} would mean any of the"
                f" models {', '.join(same)}; rename one"
            )
