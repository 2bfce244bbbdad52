"""Footprints kept in a folder, so that a model is measured on a device once and not at each start.

A footprint that is lost costs a measurement and nothing else: whatever is wrong with a file or the disk is logged as a
warning, and the worker goes on. Calls block for as long as the disk takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from dumbwaiter.devices.contract import Device
from dumbwaiter.policies.footprints import ENDLESS, Footprint

VERSION = 1
"""Of the file's form. A file of another one is not read, and written over."""

_log = logging.getLogger(__name__)

_MIB = 1 << 20
_ABANDONED = 60.0
"""After so many seconds an unfinished file is what a killed process left."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class _Version(msgspec.Struct, frozen=True):
    version: int


class _Kept(msgspec.Struct, frozen=True):
    version: int
    footprint: Footprint


class FootprintStore:
    """The footprints in *folder*, which is made when the first one is saved. Several processes may use it at once: of
    two that save under one key the last one stands, and nobody reads a half of either.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fails = False

    def load(self, key: str) -> Footprint | None:
        """What was saved under *key*; None when there is nothing that can be used: measure."""
        path = self._path(key)
        try:
            return _read(path)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            _log.warning("the footprint in %s cannot be used, so the model is measured again: %s", path, error)
            return None

    def save(self, key: str, footprint: Footprint) -> None:
        """Keep *footprint* for the next start. What cannot be written is logged, at the first of several failures."""
        path = self._path(key)
        try:
            _replace(path, msgspec.json.encode(_Kept(VERSION, footprint)))
        except OSError as error:
            if not self._fails:
                text = (
                    "the footprint cannot be kept in %s, so each start measures anew; make room, or allow writing: %s"
                )
                _log.warning(text, path, error)
            self._fails = True
        else:
            self._fails = False

    def _path(self, key: str) -> Path:
        name = key if _PLAIN.fullmatch(key) else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / f"{name}.json"


def key_of(
    *, model: str, target: str, weights: str | None, project: Path, parameters: Mapping[str, object], device: str
) -> str:
    """The key of a model on a device, 64 hex digits: another one for other weights, other code or another device.

    *target* is MODULE:CLASS or FILE.py:CLASS, *device* of device_key(). Weights in a file count by their size and
    three MiB of it, those in a folder by the names and sizes of its files, so copies share a key; those behind a URI
    count by its text. Of the code only the file that the target names counts, where it is found in *project*; nothing
    is imported. Whatever is not there counts as absent: whoever loads the model says so better.
    """
    parts = {
        "model": model,
        "target": target,
        "source": _fingerprint(_source(target, project), whole=True),
        "weights": None if weights is None else _fingerprint_of_weights(weights, project),
        "parameters": parameters,
        "device": device,
    }
    return hashlib.sha256(msgspec.json.encode(parts, enc_hook=repr, order="deterministic")).hexdigest()


def device_key(device: Device) -> str:
    """*device* as its part of a key: its name, and its capacity in MiB, for a partition may be made anew."""
    return f"{device.name} {device.capacity // _MIB} MiB"


# --- files ---


def _read(path: Path) -> Footprint | None:
    raw = path.read_bytes()
    version = msgspec.json.decode(raw, type=_Version).version
    if version != VERSION:
        _log.info("the footprint in %s has version %d, not %d: the model is measured again", path, version, VERSION)
        return None
    footprint = msgspec.json.decode(raw, type=_Kept).footprint
    if not all(_is_sound(value) for value in _numbers(footprint)) or 0 in _sizes(footprint):
        raise ValueError("it holds numbers that cannot be")
    return footprint


def _numbers(footprint: Footprint) -> Iterator[float]:
    yield from (footprint.context, footprint.weights, footprint.parked or 0)
    yield from (footprint.load_seconds, footprint.park_seconds, footprint.wake_seconds)
    yield from _sizes(footprint)
    for sizes in footprint.batches.values():
        for one in sizes.values():
            yield from (one.nbytes, one.seconds, one.at, one.seen)


def _sizes(footprint: Footprint) -> Iterator[int]:
    for sizes in footprint.batches.values():
        yield from sizes


def _is_sound(value: float) -> bool:
    return math.isfinite(value) and 0 <= value <= ENDLESS


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}-{secrets.token_hex(8)}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    for other in path.parent.glob(f".{path.stem}-*"):
        with contextlib.suppress(OSError):
            if other.stat().st_mtime < time.time() - _ABANDONED:
                other.unlink()


# --- fingerprints ---


def _source(target: str, project: Path) -> Path:
    module = target.rpartition(":")[0]
    if module.endswith(".py") or "/" in module:
        return project / os.path.expanduser(module)  # noqa: PTH111 - Path's raises for an unknown user
    path = project.joinpath(*module.split("."))
    package = path / "__init__.py"
    return package if package.exists() else path.with_name(f"{path.name}.py")


def _fingerprint_of_weights(uri: str, project: Path) -> str:
    scheme, colon, _ = uri.partition(":")
    if not colon or "/" in scheme or len(scheme) == 1:
        return _fingerprint(project / os.path.expanduser(uri))  # noqa: PTH111 - as above
    if scheme != "file":
        return uri
    try:
        return _fingerprint(project / unquote(urlsplit(uri).path))
    except ValueError:
        return uri


def _fingerprint(path: Path, *, whole: bool = False) -> str:
    """What tells the content of *path* from another one; "absent" where there is none that can be read."""
    digest = hashlib.sha256()
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            for line in sorted(_listing(path)):
                digest.update(line)
        elif stat.S_ISREG(found.st_mode):
            digest.update(b"%d\0" % found.st_size)
            _digest_file(path, found.st_size, digest.update, whole=whole)
        else:
            return "absent"
    except (OSError, ValueError):  # ValueError: a path with a NUL in it
        return "absent"
    return digest.hexdigest()


def _digest_file(path: Path, nbytes: int, update: Callable[[bytes], None], *, whole: bool) -> None:
    with path.open("rb") as file:
        if whole or nbytes <= 3 * _MIB:
            update(file.read())
            return
        for start in (0, (nbytes - _MIB) // 2, nbytes - _MIB):
            file.seek(start)
            update(file.read(_MIB))


def _listing(folder: Path) -> Iterator[bytes]:
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            with contextlib.suppress(FileNotFoundError):  # a link that leads nowhere
                yield b"%s\0%d\n" % (os.fsencode(path.relative_to(folder)), path.stat().st_size)
