"""Finding the user's class: ``module:Class``, the project's folder first on sys.path, and errors that say why not."""

from __future__ import annotations

import importlib
import importlib.machinery
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models.input_codec import one_line, without_colours
from dumbwaiter.spelling import did_you_mean

_HEADLINE_NCHARS = 500


def import_class(target: str, project: str | Path = ".") -> type:
    """The class that *target* names. Raises ModelLoadError naming the target, the reason and what there is instead.

    Whatever the module raises while it is imported is in the error's text, with its traceback.
    """
    module_name, colon, class_name = target.partition(":")
    if not colon or not class_name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ModelLoadError(f"{target!r} names no class; write MODULE:CLASS, for example network:Infer")
    folder = Path(project).resolve()
    if not folder.is_dir():
        raise ModelLoadError(f"cannot load {target!r}: the project folder {folder} does not exist")
    _put_first(folder)
    _forget_others_module(module_name.partition(".")[0], folder, target)
    return _class_in(_import(module_name, target, folder), class_name, target)


def explain(error: BaseException) -> str:
    """*error* with the part of its traceback that lies in the user's code and in what that called."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = (str(Path(__file__).parent), str(importlib.__file__), "<frozen importlib")
    shown = [frame for frame in frames if not frame.filename.startswith(ours)]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(shown[-12:])] if shown else []
    return without_colours("".join([*lines, *traceback.format_exception_only(error)])).rstrip()


def headline(error: BaseException) -> str:
    """Type and text of *error*, as a traceback ends, on one line; without its colours and notes.

    All of the text, shortened: the first line of what torch says of weights that do not fit says nothing.
    """
    summary = traceback.TracebackException(type(error), error, None)
    summary.__notes__ = None
    return one_line(without_colours(list(summary.format_exception_only())[-1]), _HEADLINE_NCHARS)


def _put_first(folder: Path) -> None:
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _forget_others_module(name: str, folder: Path, target: str) -> None:
    """A module of this name that was imported from elsewhere must not be served in place of the project's own."""
    own = importlib.machinery.PathFinder.find_spec(name, [str(folder)])
    if own is None:
        return
    if name in sys.stdlib_module_names:
        raise ModelLoadError(f"cannot load {target!r}: {name!r} is a module of Python's own; rename the project's file")
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) != own.origin:
        for imported in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
            del sys.modules[imported]


def _import(name: str, target: str, folder: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModelLoadError(
                f"cannot load {target!r}: no module {error.name!r} in {folder}; {_what_is_in(folder, error.name)}"
            ) from None
        raise ModelLoadError(
            f"cannot load {target!r}: it imports {error.name!r}, which is not installed here\n{explain(error)}"
        ) from error
    except (Exception, SystemExit) as error:
        raise ModelLoadError(
            f"cannot load {target!r}: importing it raised {headline(error)}\n{explain(error)}"
        ) from error


def _class_in(module: Any, name: str, target: str) -> type:
    found = getattr(module, name, None)
    if inspect.isclass(found):
        return found
    if found is not None:
        raise ModelLoadError(f"cannot load {target!r}: {name} is a {type(found).__name__}, not a class")
    own = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__]
    there = f"it has {', '.join(sorted(own))}" if own else "it has no classes"
    raise ModelLoadError(
        f"cannot load {target!r}: no class {name!r} in {module.__name__}; {there}{did_you_mean(name, own)}"
    )


def _what_is_in(folder: Path, wanted: str) -> str:
    names = sorted(
        {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    )
    if not names:
        return "there are no Python files; run it in the model's folder, or name FOLDER/FILE.py:CLASS"
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"it has {shown}{did_you_mean(wanted, names)}"
