"""Which packages the image gets, each in the version that this environment has.

What the project needs is in its requirements.txt, or else in its pyproject.toml. A project with neither gets what is
installed here. What a requirements.txt says in pip's own words (hashes, URLs, other files) is left to pip as it stands.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

import msgspec

from dumbwaiter.brokers import ADAPTERS
from dumbwaiter.brokers.products import product_of
from dumbwaiter.errors import ConfigError, MissingExtraError

try:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name
except ModuleNotFoundError as error:
    raise MissingExtraError("packaging", "deploy") from error

OURS = "dumbwaiter"
EXTRAS: Mapping[str, str] = {scheme: extra for scheme in ADAPTERS if (extra := product_of(scheme).extra)}
"""Scheme of a broker's URL -> the extra that has its client."""
_OF_MODELS = ("image", "numpy", "torch", "cuda", "pydantic")
"""Extras that models may need, taken if they are installed here and nothing says what the project needs."""
_TOOLS = frozenset({"pip", "setuptools", "wheel"})
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_COMMENT = re.compile(r"(^|\s)#.*$")
_FILE = "requirements.txt"
_USER_OF_URL = re.compile(r"(?:\w+\+)?https?://([^/?#\s@]+)@", re.IGNORECASE)
_OF_PIP = re.compile(r"\$\{[A-Z0-9_]+\}")
"""A variable, which pip puts in."""


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """*pins* as ``name==version``, dumbwaiter's first. *source* says in words where they come from. *as_is* names a
    file of the project that pip reads itself. *local* are those that were installed from a folder, and so are in no
    index.
    """

    pins: Sequence[str]
    source: str
    as_is: str | None = None
    local: Mapping[str, str] = {}


class Installed(msgspec.Struct, frozen=True):
    """One distribution: its version, what it requires, and the folder from which it was installed, if any."""

    version: str
    requires: Sequence[str] = ()
    folder: str | None = None


def installed_here() -> dict[str, Installed]:
    """All distributions of this environment, by their canonical names."""
    return {
        canonicalize_name(one.metadata["Name"]): Installed(one.version, one.requires or [], _folder_of(one))
        for one in distributions()
        if one.metadata["Name"]
    }


def requirements_of(project: Path, extras: Iterable[str], installed: Mapping[str, Installed]) -> Requirements:
    """What the image of *project* gets, with these *extras* of dumbwaiter.

    Raises ConfigError for what is required and not *installed*.
    """
    listed = _listed(project)
    if listed is None:
        names = [name for name in installed if name not in _TOOLS]
        found = {*extras, *(extra for extra in _OF_MODELS if _has(extra, installed))}
        source = f"all that is installed here, for {project} has neither {_FILE} nor pyproject.toml"
        return _requirements(_ours(found), names, installed, source)
    file, lines = listed
    _check_open(file, lines)
    try:
        wanted = [Requirement(line) for line in lines]
    except InvalidRequirement:
        wanted = []
    if len(wanted) < len(lines) or any(one.url for one in wanted):
        source = f"{file} as it stands, and for dumbwaiter what is installed here"
        own = {canonicalize_name(match[1]) for line in lines if (match := _NAME.match(line))}
        names = sorted(closure([_ours(set(extras))], installed) - own)
        return _requirements(_ours(set(extras)), names, installed, source, as_is=file)
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate()]
    asked = {extra for one in wanted if canonicalize_name(one.name) == OURS for extra in one.extras}
    ours = _ours({*extras, *asked})
    _check(wanted, installed, file)
    return _requirements(
        ours, sorted(closure([ours, *wanted], installed)), installed, f"{file}, in the versions installed here"
    )


def closure(roots: Iterable[Requirement], installed: Mapping[str, Installed]) -> set[str]:
    """The names of *roots* and of all that they require here. Raises ConfigError for one that is not installed."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root.name), extra) for root in roots for extra in ("", *root.extras)]
    while waiting:
        name, extra = found = waiting.pop()
        if found in seen:
            continue
        seen.add(found)
        if name not in installed:
            raise ConfigError(f"{name} is required and not installed here; install it: pip install '{name}'")
        for text in installed[name].requires:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), one) for one in ("", *needed.extras)]
    return {name for name, _ in seen}


def _requirements(
    ours: Requirement,
    names: Iterable[str],
    installed: Mapping[str, Installed],
    source: str,
    *,
    as_is: str | None = None,
) -> Requirements:
    names = [name for name in names if name != OURS]
    return Requirements(
        pins=[f"{ours}=={installed[OURS].version}", *(f"{name}=={installed[name].version}" for name in sorted(names))],
        source=source,
        as_is=as_is,
        local={name: folder for name in (OURS, *names) if (folder := installed[name].folder)},
    )


def _listed(project: Path) -> tuple[str, list[str]] | None:
    """The file in which the project says what it needs, and its lines. Raises ConfigError where it cannot be read."""
    try:
        if (project / _FILE).exists():
            lines = [_COMMENT.sub("", line).strip() for line in (project / _FILE).read_text("utf-8").splitlines()]
            return _FILE, [line for line in lines if line]
        if (project / "pyproject.toml").exists():
            table = tomllib.loads((project / "pyproject.toml").read_text("utf-8")).get("project", {})
            return ("pyproject.toml", table["dependencies"]) if "dependencies" in table else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"what {project} requires cannot be read: {error}") from None
    return None


def _check_open(file: str, lines: Iterable[str]) -> None:
    """Raises ConfigError where a URL has a password, for *file* is part of the image."""
    for match in filter(None, map(_USER_OF_URL.search, lines)):
        user, _, password = match[1].partition(":")
        if _OF_PIP.sub("", password or user):
            raise ConfigError(
                f"{file} has a URL with a user or password, and it would be part of the image; say"
                " --build-arg PIP_EXTRA_INDEX_URL=... when you build, or write ${NAME} there, which pip takes from a"
                " variable"
            )


def _check(wanted: Iterable[Requirement], installed: Mapping[str, Installed], file: str) -> None:
    """Raises ConfigError where what is installed here is not what *file* asks for."""
    for one in wanted:
        found = installed.get(canonicalize_name(one.name))
        if found is None:
            raise ConfigError(f"{one} in {file} is not installed here, so its version is unknown; pip install '{one}'")
        if not one.specifier.contains(found.version, prereleases=True):
            raise ConfigError(f"{file} asks for {one}, and {found.version} is installed here; pip install '{one}'")


def _has(extra: str, installed: Mapping[str, Installed]) -> bool:
    needed = [Requirement(text) for text in installed[OURS].requires]
    of_it = [one for one in needed if one.marker is not None and one.marker.evaluate({"extra": extra})]
    own = [one for one in of_it if not one.marker.evaluate({"extra": ""})]  # type: ignore[union-attr]
    return bool(own) and all(canonicalize_name(one.name) in installed for one in own)


def _ours(extras: Iterable[str]) -> Requirement:
    names = ",".join(sorted(extras))
    return Requirement(f"{OURS}[{names}]" if names else OURS)


def _folder_of(one: Distribution) -> str | None:
    text = one.read_text("direct_url.json")
    url = msgspec.json.decode(text).get("url", "") if text else ""
    return url.removeprefix("file://") if url.startswith("file://") else None
