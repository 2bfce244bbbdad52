"""What a user's class takes and gives, read from the annotations of its ``__call__``.

* One parameter: the body is the input. Several: the body is a JSON object with their names as keys.
* ``list[X]`` as the single parameter with a list (or array, or tensor) as the result means *batched*: a request is
  one X, and an input that is itself a list cannot be told apart. A class attribute ``batched`` overrules.
* A generator streams.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

import msgspec

from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models.codecs import kind_of

_LISTS = (list, collections.abc.Sequence)
_STREAMS = (collections.abc.Generator, collections.abc.Iterator, collections.abc.Iterable)
_SKIPPED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
#: Names that people import under `if TYPE_CHECKING:`, where they do not exist at run time.
_USUAL_NAMES = {
    "PIL": "PIL",
    "Image": "PIL.Image",
    "np": "numpy",
    "numpy": "numpy",
    "npt": "numpy.typing",
    "torch": "torch",
    "typing": "typing",
    "Path": "pathlib:Path",
    "Tensor": "torch:Tensor",
    "Iterator": "collections.abc:Iterator",
    "Iterable": "collections.abc:Iterable",
    "Generator": "collections.abc:Generator",
    "Sequence": "collections.abc:Sequence",
    "Mapping": "collections.abc:Mapping",
    "Any": "typing:Any",
}


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of ``__call__``; *annotation* is None when there is none."""

    name: str
    annotation: Any
    required: bool
    by_position: bool


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """*item* and *output* annotate one input and one output, also where the class takes lists of them."""

    parameters: tuple[Parameter, ...]
    item: Any
    output: Any
    batched: bool
    streaming: bool

    @property
    def several(self) -> bool:
        """The input is a JSON object of arguments (where only the first is required, it may come alone too)."""
        return not self.batched and len(self.parameters) > 1


def read_signature(cls: type) -> Signature:
    """Inspect the class's ``__call__`` (for a torch module that has none of its own: ``forward``).

    Raises ModelLoadError, naming the class and what is wrong with it.
    """
    call = _call_of(cls)
    hints = hints_of(call, cls)
    parameters = _parameters_of(call, hints, cls)
    result = _image_class(hints.get("return"))
    batched = _is_batched(cls, parameters, result)
    streaming = inspect.isgeneratorfunction(call) or get_origin(result) in _STREAMS[:2]
    if batched and streaming:
        raise ModelLoadError(f"{cls.__name__} takes lists and is a generator; streaming is for one input at a time")
    output = result
    if batched:
        output = _element_of(result) if _is_list(result) else result
    elif streaming and get_origin(result) in _STREAMS:
        output = _element_of(result)
    first = parameters[0].annotation
    item = _element_of(first) if batched else first
    return Signature(parameters=parameters, item=item, output=output, batched=batched, streaming=streaming)


def hints_of(function: Callable[..., Any], cls: type) -> dict[str, Any]:
    """The function's annotations, with those in quotes evaluated. Raises ModelLoadError naming what is unknown."""
    if not getattr(function, "__annotations__", None):
        return {}
    known = {name: value for name, value in vars(cls).items() if isinstance(value, type)}
    while True:
        try:
            return typing.get_type_hints(function, localns=known, include_extras=True)
        except NameError as error:
            name = error.name or ""
            if name in known or name not in _USUAL_NAMES:
                raise ModelLoadError(
                    f"an annotation of {cls.__name__}.{function.__name__} names {name!r}, which does not exist when"
                    f" the model runs; import it outside `if TYPE_CHECKING:`, or drop the annotation"
                ) from None
            known[name] = _imported(_USUAL_NAMES[name], cls)
        except Exception as error:
            raise ModelLoadError(
                f"an annotation of {cls.__name__}.{function.__name__} cannot be evaluated: {error}"
            ) from error


def _call_of(cls: type) -> Callable[..., Any]:
    owner = next((parent for parent in cls.__mro__ if "__call__" in vars(parent)), None)
    if owner is None:
        raise ModelLoadError(f"{cls.__name__} cannot be called: it has no __call__(self, input) method")
    call = vars(owner)["__call__"]
    if owner.__module__ == "torch.nn.modules.module":
        call = cls.forward  # type: ignore[attr-defined]
    call = inspect.unwrap(call)
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        raise ModelLoadError(f"{cls.__name__}.__call__ is async; write it as a plain def, for a device runs one batch")
    return typing.cast("Callable[..., Any]", call)


def _parameters_of(call: Callable[..., Any], hints: Mapping[str, Any], cls: type) -> tuple[Parameter, ...]:
    try:
        found = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError) as error:
        raise ModelLoadError(f"{cls.__name__}.__call__ cannot be inspected: {error}; write it as a plain def") from None
    if found and found[0].kind not in _SKIPPED:
        found = found[1:]  # self
    parameters = tuple(
        Parameter(
            name=one.name,
            annotation=_image_class(hints.get(one.name)),
            required=one.default is inspect.Parameter.empty,
            by_position=one.kind is not inspect.Parameter.KEYWORD_ONLY,
        )
        for one in found
        if one.kind not in _SKIPPED
    )
    if parameters:
        return parameters
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in found):
        return (Parameter("input", None, required=True, by_position=True),)  # hidden by some decorator
    raise ModelLoadError(f"{cls.__name__}.__call__ takes no input; write __call__(self, input)")


def _is_batched(cls: type, parameters: tuple[Parameter, ...], result: Any) -> bool:
    first, *others = parameters
    takes_list = get_origin(first.annotation) in {list, collections.abc.Sequence}
    alone = first.by_position and not any(other.required for other in others)
    wish = getattr(cls, "batched", None)
    if wish is True and not (takes_list and alone):
        raise ModelLoadError(f"{cls.__name__}.batched is True, but its __call__ does not take one list[...]")
    if wish is not None or not (takes_list and alone):
        return bool(wish)
    if _is_list(result) or kind_of(result) in {"array", "tensor"}:
        return True
    return result is None and kind_of(_element_of(first.annotation)) in {"image", "array", "tensor"}


def _is_list(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return annotation in _LISTS or origin in _LISTS or (origin is tuple and get_args(annotation)[1:] == (...,))


def _element_of(annotation: Any) -> Any:
    arguments = get_args(annotation)
    return _image_class(arguments[0]) if arguments else None


def _image_class(annotation: Any) -> Any:
    """`from PIL import Image` and then `image: Image` names the module; everyone knows what is meant."""
    if inspect.ismodule(annotation) and annotation.__name__ == "PIL.Image":
        return annotation.Image
    if get_origin(annotation) in {list, collections.abc.Sequence}:
        inner = get_args(annotation)[0]
        return list[_image_class(inner)] if inspect.ismodule(inner) else annotation  # type: ignore[misc]
    return None if annotation is type(None) else annotation


def _imported(place: str, cls: type) -> Any:
    module, _, name = place.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModelLoadError(f"an annotation of {cls.__name__} needs {error.name}, which is not installed") from None
    if module == "PIL":
        importlib.import_module("PIL.Image")
    return getattr(found, name) if name else sys.modules[module]
