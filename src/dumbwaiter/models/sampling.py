"""Inputs to measure a model with before the first request: the class's own, or made up where any will do.

What a picture shows and what a sentence says do not matter to the memory and time that they take. Of arrays and JSON
even the shape would be a guess, and a wrong one fails in the model, so none are made up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from dumbwaiter import data_urls
from dumbwaiter.content_types import JSON, TEXT, parse_content_type
from dumbwaiter.errors import BadInputError, ModelLoadError
from dumbwaiter.models.arguments import Arguments, SeveralInputs, SingleInput
from dumbwaiter.models.codecs_json import encode_json
from dumbwaiter.models.importing import explain, headline
from dumbwaiter.models.signature import Signature

_BMP = "image/bmp"
_SIZE = (640, 480)
_SENTENCE = (
    "The kitchen sends up its dishes one by one while the waiters upstairs carry new orders to the hatch, and nobody"
    " has to wait for anybody else because whatever is not yet ready stays on the shelf until there is room for it."
)


def sample_inputs(model: Any, signature: Signature, inputs: SingleInput | SeveralInputs, size: int) -> list[Any] | None:
    """*size* decoded inputs for predict(), repeated as often as needed; None when there is nothing to measure with.

    *model* may have ``sample_inputs``: a list of inputs, or a method that returns one input or a list of them. Raises
    ModelLoadError when that method raises, or there is none in the list.
    """
    own = getattr(model, "sample_inputs", None)
    if own is None:
        return _made_up(inputs, size)
    found = _called(model, own) if callable(own) else own
    several = list(found) if isinstance(found, (list, tuple)) else [found]
    if not several:
        raise ModelLoadError(f"{type(model).__name__}.sample_inputs is empty; give at least one input, or leave it out")
    ready = [_as_decoded(one, signature) for one in several]
    return [ready[place % len(ready)] for place in range(size)]


def _called(model: Any, method: Any) -> Any:
    try:
        return method()
    except Exception as error:
        raise ModelLoadError(
            f"{type(model).__name__}.sample_inputs() raised {headline(error)}; it is called without arguments and"
            f" returns one input of the model's, or a list of them\n{explain(error)}"
        ) from error


def _as_decoded(one: Any, signature: Signature) -> Any:
    """A dict for a class with several parameters becomes its arguments."""
    if not (signature.several and isinstance(one, dict)):
        return one
    by_name, by_position = dict(one), []
    for parameter in signature.parameters:
        if parameter.name not in by_name or not parameter.by_position:
            break
        by_position.append(by_name.pop(parameter.name))
    return Arguments(by_position, by_name)


def _made_up(inputs: SingleInput | SeveralInputs, size: int) -> list[Any] | None:
    """Bodies that go through the model's codecs, so that a picture comes in its mode and of its class."""
    described = inputs.describe()
    several = described["kind"] == "arguments"
    kinds = _required_kinds(described) if several else {"": described["kind"]}
    if not kinds or not set(kinds.values()) <= {"image", "text"}:
        return None
    bodies = {name: _BODIES[kind]() for name, kind in kinds.items()}
    content_type, body = _as_object(bodies) if several else bodies[""]
    try:
        return [inputs.decode(parse_content_type(content_type), body) for _ in range(size)]
    except BadInputError:
        return None  # more pixels than the model's limit, for one


def _required_kinds(described: Mapping[str, Any]) -> dict[str, str]:
    """Kinds of the required parameters; if none is, of the first: few call a model with nothing."""
    kinds: dict[str, str] = described["kinds"]
    names = described["schema"]["required"] or list(kinds)[:1]
    return {name: kinds[name] for name in names}


def _as_object(bodies: Mapping[str, tuple[str, bytes]]) -> tuple[str, bytes]:
    arguments = {
        name: body.decode() if content_type == TEXT else data_urls.write(content_type, body)
        for name, (content_type, body) in bodies.items()
    }
    return JSON, encode_json(arguments)


def _noise() -> tuple[str, bytes]:
    """An uncompressed picture: decoding it costs next to nothing, however many are wanted."""
    width, height = _SIZE
    pixels = random.Random(0).randbytes(3 * width * height)  # noqa: S311 - the same noise each time
    header = [b"BM", (54 + len(pixels), 4), (0, 4), (54, 4), (40, 4), (width, 4), (height, 4), (1, 2), (24, 2)]
    fields = [one if isinstance(one, bytes) else one[0].to_bytes(one[1], "little") for one in header]
    return _BMP, b"".join(fields).ljust(54, b"\0") + pixels


def _sentence() -> tuple[str, bytes]:
    return TEXT, _SENTENCE.encode()


_BODIES: dict[str, Callable[[], tuple[str, bytes]]] = {"image": _noise, "text": _sentence}
