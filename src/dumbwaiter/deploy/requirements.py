"""Which packages a machine or an image gets, each in the version that this environment has.

What the project needs is in its requirements.txt, or else in its pyproject.toml. A project with neither gets what is
installed here. What a requirements.txt says in pip's own words (hashes, URLs, other files) is left to pip as it stands,
with the files of the project that it names. A pyproject.toml pip cannot read, so its URLs stand below the pins.

What was installed from a folder here is pinned all the same, and named as a wheel to be made: nobody else has it.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

import msgspec

from dumbwaiter.brokers import ADAPTERS
from dumbwaiter.brokers.products import product_of
from dumbwaiter.errors import ConfigError, MissingExtraError

try:
    from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
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
_FILE, _PYPROJECT = "requirements.txt", "pyproject.toml"
_NAMED = re.compile(r"[\w.][\w./ -]*")
"""The path of a file below a folder that a Dockerfile takes as it stands."""
_ELSEWHERE = re.compile(r"https?:", re.IGNORECASE)
_USER_OF_URL = re.compile(r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*)://([^/?#\s@]+)@", re.IGNORECASE)
_OF_ONE = re.compile(r"\s--?[a-zA-Z].*$")
"""Options of pip for one requirement, behind it."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_ARCHIVES = (".whl", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_OF_PIP = re.compile(r"\$\{[A-Z0-9_]+\}")
"""A variable, which pip puts in."""


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """*pins* as ``name==version``, dumbwaiter's first; what comes from elsewhere is in *urls*, as ``name @ URL``.
    *source* says in words where they come from. *as_is* names a file of the project that pip reads itself, and
    *beside* those that pip reads with it. *local* are those that were installed from a folder, and so are in no index.
    """

    pins: Sequence[str]
    source: str
    urls: Sequence[str] = ()
    as_is: str | None = None
    beside: Sequence[str] = ()
    local: Mapping[str, str] = {}


class _Project(msgspec.Struct):
    dependencies: list[str] | None = None


class _Pyproject(msgspec.Struct):
    """What is read of a pyproject.toml."""

    project: _Project = msgspec.field(default_factory=_Project)


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
    if (project / _FILE).exists():
        return _of_lines(_read_all(project), set(extras), installed)
    texts = _dependencies(project)
    if texts is not None:
        _check_open(_PYPROJECT, texts)
        return _pinned(_PYPROJECT, [_requirement(text) for text in texts], set(extras), installed)
    names = [name for name in installed if name not in _TOOLS]
    found = {*extras, *(extra for extra in _OF_MODELS if _has(extra, installed))}
    source = f"all that is installed here, for {project} has neither {_FILE} nor {_PYPROJECT}"
    return _requirements(_ours(found), names, installed, source)


def closure(roots: Iterable[Requirement], installed: Mapping[str, Installed]) -> set[str]:
    """The names of *roots* and of all that they require here. Raises ConfigError for one that is not installed."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root.name), extra, "") for root in roots for extra in ("", *root.extras)]
    while waiting:
        name, extra, whose = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        if name not in installed:
            by = f" by {whose}" if whose else ""
            raise ConfigError(f"{name} is required{by} and not installed here; install it: pip install '{name}'")
        for text in installed[name].requires:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), one, name) for one in ("", *needed.extras)]
    return {name for name, _ in seen}


def document(found: Requirements) -> str:
    """The pins of *found* as a file that pip reads."""
    head = f"# {' '.join(found.source.split())}\n"
    return head + "".join(f"{line}\n" for line in (*found.pins, *found.urls))


def extra_of(broker: str) -> set[str]:
    """The extra with the client of the *broker* at that URL, if one is needed."""
    return {EXTRAS[scheme]} if (scheme := broker.partition(":")[0]) in EXTRAS else set()


def _requirements(
    ours: Requirement,
    names: Iterable[str],
    installed: Mapping[str, Installed],
    source: str,
    *,
    urls: Mapping[str, Requirement] = {},
    as_is: str | None = None,
    beside: Sequence[str] = (),
) -> Requirements:
    """*names*, each in the version *installed* or from its URL."""
    pinned = [OURS, *sorted({*names} - {OURS})]
    pinned = [name for name in pinned if name not in urls]
    return Requirements(
        pins=[f"{ours if name == OURS else name}=={installed[name].version}" for name in pinned],
        urls=[f"{ours if name == OURS else _bare(one)} @ {one.url}" for name, one in urls.items()],
        source=source,
        as_is=as_is,
        beside=beside,
        local={name: folder for name in pinned if (folder := installed[name].folder)},
    )


def _bare(one: Requirement) -> str:
    """Name and extras alone."""
    return f"{one.name}[{','.join(sorted(one.extras))}]" if one.extras else one.name


def _of_lines(files: Mapping[str, Sequence[str]], extras: set[str], installed: Mapping[str, Installed]) -> Requirements:
    """What a requirements.txt asks for: *files* are its lines, and those of all that it names."""
    try:
        wanted = [Requirement(line) for line in files[_FILE]]
    except InvalidRequirement:
        wanted = None
    if wanted is not None and not any(one.url and not _is_local(one.url) for one in wanted):
        return _pinned(_FILE, wanted, extras, installed)
    installing = _installing(files)
    for name, lines in files.items():
        _check_elsewhere(name, lines if name in installing else [line for line in lines if "@" in line])
    source = f"{_FILE} as it stands, and for dumbwaiter what is installed here"
    own = {canonicalize_name(match[1]) for lines in files.values() for line in lines if (match := _NAME.match(line))}
    names = sorted(closure([_ours(extras)], installed) - own)
    beside = [name for name in files if name != _FILE]
    return _requirements(_ours(extras), names, installed, source, as_is=_FILE, beside=beside)


def _pinned(
    file: str, wanted: Sequence[Requirement], extras: set[str], installed: Mapping[str, Installed]
) -> Requirements:
    """What is *wanted*, in the versions installed here, or from its URL."""
    wanted = [one for one in wanted if one.marker is None or _applies(one.marker, file)]
    ours = _ours({*extras, *(extra for one in wanted if canonicalize_name(one.name) == OURS for extra in one.extras)})
    urls = {str(canonicalize_name(one.name)): one for one in wanted if one.url and not _is_local(one.url)}
    _check([one for one in wanted if canonicalize_name(one.name) not in urls], installed, file)
    # What is required by something that comes from a URL and is not here is for pip to find out.
    known = [one for one in wanted if canonicalize_name(one.name) in installed]
    source = f"{file}, in the versions installed here{f', and {len(urls)} from a URL' if urls else ''}"
    return _requirements(ours, closure([ours, *known], installed), installed, source, urls=urls)


def _read_all(project: Path) -> dict[str, list[str]]:
    """The lines of requirements.txt, and of each file that it and those that it names give to pip. Raises ConfigError
    for one that cannot be read, or is no file of the project.
    """
    found, waiting = dict[str, list[str]](), [_FILE]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            if not (project / name).resolve().is_relative_to(project.resolve()):
                raise ConfigError(f"{name} leads out of {project}, and what is not in there goes nowhere with it")
            text = (project / name).read_text("utf-8-sig")
        except (OSError, ValueError) as error:
            raise ConfigError(f"what {project} requires cannot be read: {name}: {error}") from None
        _check_open(name, text.splitlines())  # comments go with the file, too
        found[name] = list(_lines(text))
        waiting += [_within(name, other) for line in found[name] for other in _files_in(name, line)]
    return found


def _lines(text: str) -> Iterator[str]:
    """As pip reads them: without comments, and one that ends in a backslash with the next one."""
    begun = ""
    for line in text.splitlines():
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            begun += line.strip("\\")
            continue
        whole = _COMMENT.sub("", begun + (" " if is_comment else "") + line).strip()
        begun = ""
        if whole:
            yield whole
    if begun.strip():
        yield begun.strip()


def _files_in(file: str, line: str) -> list[str]:
    """The files that a *line* of pip's own options names, as it names them. Those of another machine are not ours."""
    said = _options(file, line)
    return [name for name in (*said.requirements, *said.constraints) if not _ELSEWHERE.match(name)]


def _installing(files: Mapping[str, Sequence[str]]) -> set[str]:
    """Those of *files* whose packages are installed: what ``-c`` alone names says only which version, or from where."""
    named = {_FILE}
    for name, lines in files.items():
        for line in lines:
            named |= {_within(name, one) for one in _options(name, line).requirements if not _ELSEWHERE.match(one)}
    return named & files.keys()


def _options(file: str, line: str) -> Namespace:
    """What a *line* of *file* says in pip's options, a list for each. Raises ConfigError where pip cannot read it."""
    options = ArgumentParser(add_help=False, exit_on_error=False)
    options.add_argument("-r", "--requirement", dest="requirements", action="append", default=[])
    options.add_argument("-c", "--constraint", dest="constraints", action="append", default=[])
    options.add_argument("-e", "--editable", dest="editables", action="append", default=[])
    if not line.startswith("-"):
        return options.parse_args([])
    try:
        return options.parse_known_args(shlex.split(line))[0]
    except (ValueError, ArgumentError):
        raise ConfigError(f"{file} has a line that pip cannot read: one with -r, -c or -e, or an open quote") from None


def _within(file: str, name: str) -> str:
    """The path, from the project, of what *file* there calls *name*. Raises ConfigError for what is not in there."""
    path = os.path.normpath(PurePosixPath(file).parent / name)
    if not _NAMED.fullmatch(path) or path.startswith("../"):
        raise ConfigError(
            f"{file} names the file {name!r}, and what is not in the project goes nowhere with it; write the path of"
            " one that is, of letters, digits and . _ - /"
        )
    return path


def _dependencies(project: Path) -> list[str] | None:
    """What pyproject.toml says that the project needs, if it does. Raises ConfigError where it cannot be read."""
    if not (project / _PYPROJECT).exists():
        return None
    try:
        tree = tomllib.loads((project / _PYPROJECT).read_text("utf-8"))
        return msgspec.convert(tree, _Pyproject).project.dependencies
    except (OSError, ValueError) as error:  # msgspec's are ValueErrors, too
        raise ConfigError(f"what {project} requires cannot be read: {_PYPROJECT}: {error}") from None


def _requirement(text: str) -> Requirement:
    """Raises ConfigError for a *text* that is none, or does not stay one line in a file for pip."""
    try:
        found = Requirement(text)
    except InvalidRequirement:
        found = None
    if found is None or (found.url and (not found.url.isprintable() or "\\" in found.url)):
        raise ConfigError(
            f"{_PYPROJECT} has the dependency {text!r}, which is none; write NAME, NAME>=VERSION or NAME @ URL"
        )
    return found


def _is_local(url: str) -> bool:
    """Whether it is a file, folder or repository of this machine, which no other one has."""
    return url.partition(":")[0].lower().rpartition("+")[2] == "file"


def _check_open(file: str, lines: Iterable[str]) -> None:
    """Raises ConfigError where a URL has a password, for *file* is part of the image. Of the web a user alone may be
    one, too.
    """
    for scheme, login in (match.groups() for line in lines for match in _USER_OF_URL.finditer(line)):
        user, _, password = login.partition(":")
        is_web = scheme.lower().rpartition("+")[2] in {"http", "https"}
        if _OF_PIP.sub("", password or (user if is_web else "")):
            raise ConfigError(
                f"{file} has a URL with a user or password, and it would be part of the image; say"
                " --build-arg PIP_EXTRA_INDEX_URL=... when you build, or write ${NAME} there, which pip takes from a"
                " variable"
            )


def _check_elsewhere(file: str, lines: Iterable[str]) -> None:
    """Raises ConfigError for a line by which pip would install a file or folder of this machine."""
    for line in lines:
        is_option = line.startswith("-")
        what = _options(file, line).editables if is_option else [line]
        if any(_is_path(file, one, is_editable=is_option) for one in what):
            raise ConfigError(
                f"{file} installs a file or folder of this machine, and there is none of it elsewhere: {line}; leave it"
                " out if it is dumbwaiter, which comes anyhow; if it is the project itself, whose files go along, name"
                " what that requires in its place; of another package write the name alone, and put its wheel into the"
                " folder wheels/ of what is rendered"
            )


def _applies(marker: Marker, file: str) -> bool:
    """Whether what *marker* stands behind in *file* is for machines such as this. Raises ConfigError."""
    try:
        return marker.evaluate()
    except (UndefinedComparison, UndefinedEnvironmentName) as error:
        raise ConfigError(f"{file} has a marker that says nothing of any machine: {marker}; {error}") from None


def _is_path(file: str, text: str, *, is_editable: bool) -> bool:
    """Whether pip takes what *text* in *file* says from a path, where it takes it at all."""
    what, _, marker = _OF_ONE.sub("", text).partition(";")
    try:
        if marker and not _applies(Marker(marker), file):
            return False
    except InvalidMarker:
        what += f";{marker}"
    what = what.strip()
    if "${" in what:
        return False  # pip puts in what nobody knows here
    name, _, source = what.partition("@")
    if source and _NAME.fullmatch(name.partition("[")[0].strip()):
        return _is_local(source.strip())
    if _SCHEME.match(what):
        return _is_local(what)
    path = what.partition("[")[0].strip()
    return is_editable or path.startswith((".", "~")) or "/" in path or path.lower().endswith(_ARCHIVES)


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
