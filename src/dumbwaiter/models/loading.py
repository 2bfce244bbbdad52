"""From a ModelSpec to a model that is ready to serve: import the class, fetch its weights, construct it, wrap it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.errors import BadInputError, MissingExtraError, ModelLoadError, PermanentError
from dumbwaiter.models.arguments import Arguments, SeveralInputs, SingleInput
from dumbwaiter.models.codecs import encode_output, input_codec
from dumbwaiter.models.contract import LARGEST_BATCH, LoadedModel, ModelSpec
from dumbwaiter.models.importing import explain, headline, import_class
from dumbwaiter.models.parking import Parking, parking_of
from dumbwaiter.models.sampling import sample_inputs
from dumbwaiter.models.signature import Parameter, Signature, hints_of, read_signature
from dumbwaiter.models.weights import resolve_weights

DEFAULT_MAX_BATCH = 32


def load_model(spec: ModelSpec, *, on_found: Callable[[], object] | None = None) -> LoadedModel:
    """Import the class that *spec* names, construct it with its weights and put its codecs around it.

    *on_found* is called once the class is imported, before anything is done with it.

    Raises ModelLoadError naming the target, the reason and what to do; the first line says it all, a traceback of the
    user's code may follow.
    """
    cls = import_class(spec.target, spec.project)
    if on_found is not None:
        on_found()
    try:
        signature = read_signature(cls)
        max_batch = _max_batch(cls, signature, spec)
        inputs = _inputs(cls, signature, spec)
        model = _construct(cls, spec)
        return ServedModel(model, signature, inputs, max_batch=max_batch, parking=_parking(model, spec))
    except MissingExtraError as error:
        raise ModelLoadError(f"cannot load {spec.target!r}: {error}") from error


class ServedModel:
    """The user's object behind its codecs: models.contract.LoadedModel."""

    def __init__(
        self,
        model: Any,
        signature: Signature,
        inputs: SingleInput | SeveralInputs,
        *,
        max_batch: int,
        parking: Parking | None = None,
    ) -> None:
        self.max_batch = max_batch
        self.cheap_decode = inputs.cheap
        self._model = model
        self._signature = signature
        self._inputs = inputs
        self._parking = parking_of(model) if parking is None else parking

    def describe(self) -> Mapping[str, Any]:
        return {
            "input": {**self._inputs.describe(), "content_types": list(self._inputs.content_types)},
            "output": _describe_output(self._signature),
            "batched": self._signature.batched,
            "streaming": self._signature.streaming,
            "max_batch": self.max_batch,
        }

    def decode(self, content_type: str | None, body: bytes | memoryview) -> Any:
        if not len(body):
            raise BadInputError(f"empty body; expected {' or '.join(self._inputs.content_types[:4])}")
        return self._inputs.decode(parse_content_type(content_type), body)

    def predict(self, inputs: Sequence[Any], on_chunk: Callable[[Any], None] | None = None) -> list[Any]:
        if not inputs:
            return []
        self.wake()
        if self._signature.batched:
            return _as_many(self._model(list(inputs)), len(inputs))
        if len(inputs) == 1:
            return [self._call(inputs[0], on_chunk)]
        return [self._call_alone(one) for one in inputs]

    def encode(self, output: Any) -> tuple[str, bytes]:
        return encode_output(output, self._signature.output)

    @property
    def can_park(self) -> bool:
        return self._parking.can_park

    def park(self) -> None:
        self._parking.park()

    def wake(self) -> None:
        self._parking.wake()

    def sample(self, size: int) -> list[Any] | None:
        return sample_inputs(self._model, self._signature, self._inputs, size)

    def _call(self, one: Any, on_chunk: Callable[[Any], None] | None = None) -> Any:
        output = self._model(*one.by_position, **one.by_name) if isinstance(one, Arguments) else self._model(one)
        if self._signature.streaming or isinstance(output, types.GeneratorType):
            return list(output) if on_chunk is None else _stream(output, on_chunk)
        return output

    def _call_alone(self, one: Any) -> Any:
        try:
            return self._call(one)
        except Exception as error:
            return error


def _stream(chunks: Iterable[Any], on_chunk: Callable[[Any], None]) -> list[Any]:
    """As list(*chunks*), *on_chunk* hearing of each; a generator that is not run to its end is closed."""
    seen = []
    try:
        for chunk in chunks:
            seen.append(chunk)
            on_chunk(chunk)
    finally:
        if isinstance(chunks, types.GeneratorType):
            chunks.close()
    return seen


def _as_many(outputs: Any, count: int) -> list[Any]:
    """*outputs* as a list of *count*. Raises PermanentError, naming both lengths."""
    if isinstance(outputs, types.GeneratorType):
        outputs = list(outputs)
    sequence = isinstance(outputs, (list, tuple)) or callable(getattr(outputs, "tolist", None))
    try:
        length = len(outputs) if sequence else None
    except TypeError:
        length = None  # an array without dimensions
    if length is None:
        raise PermanentError(
            f"the model took a batch of {count} and returned a {type(outputs).__name__}; a batched model returns a list"
        )
    if length != count:
        raise PermanentError(f"the model took a batch of {count} inputs and returned {length} outputs")
    return list(outputs)


def _max_batch(cls: type, signature: Signature, spec: ModelSpec) -> int:
    if not signature.batched:
        return 1
    wanted = spec.max_batch if spec.max_batch is not None else getattr(cls, "max_batch", DEFAULT_MAX_BATCH)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise ModelLoadError(f"cannot load {spec.target!r}: max_batch must be a whole number above 0, not {wanted!r}")
    if wanted > LARGEST_BATCH:
        raise ModelLoadError(f"cannot load {spec.target!r}: max_batch is {wanted}, but {LARGEST_BATCH} is the most")
    return wanted


def _inputs(cls: type, signature: Signature, spec: ModelSpec) -> SingleInput | SeveralInputs:
    mode = getattr(cls, "image_mode", "RGB")

    def codec(parameter: Parameter) -> Any:
        try:
            return input_codec(parameter.annotation, parameter.name, image_mode=mode, max_pixels=spec.max_pixels)
        except ModelLoadError as error:
            raise ModelLoadError(f"cannot load {spec.target!r}: parameter {parameter.name!r}: {error}") from None

    if signature.several:
        return SeveralInputs(signature.parameters, [codec(one) for one in signature.parameters])
    first = signature.parameters[0]
    item = Parameter(first.name, signature.item, first.required, first.by_position)
    return SingleInput(first, codec(item))


def _construct(cls: type, spec: ModelSpec) -> Any:
    arguments = []
    if spec.weights is not None:
        arguments.append(resolve_weights(spec.weights, _weights_annotation(cls, spec), project=spec.project))
    try:
        return cls(*arguments, **spec.parameters)
    except ModelLoadError:
        raise
    except (Exception, SystemExit) as error:
        hint = "" if spec.weights is not None or not _needs_weights(cls) else "; give it weights with --weights"
        raise ModelLoadError(
            f"cannot load {spec.target!r}: {cls.__name__}() raised {headline(error)}{hint}\n{explain(error)}"
        ) from error


def _parking(model: Any, spec: ModelSpec) -> Parking:
    try:
        return parking_of(model)
    except ModelLoadError as error:
        raise ModelLoadError(f"cannot load {spec.target!r}: {error}") from None


def _first_parameter(cls: type) -> inspect.Parameter | None:
    try:
        parameters = list(inspect.signature(cls).parameters.values())
    except (TypeError, ValueError):
        return None  # written in C, or nothing that inspect knows
    return next((one for one in parameters if one.kind is not inspect.Parameter.KEYWORD_ONLY), None)


def _needs_weights(cls: type) -> bool:
    first = _first_parameter(cls)
    return (
        first is not None
        and first.default is first.empty
        and first.kind
        in {
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        }
    )


def _weights_annotation(cls: type, spec: ModelSpec) -> Any:
    first = _first_parameter(cls)
    if first is None or first.kind is inspect.Parameter.VAR_KEYWORD:
        raise ModelLoadError(
            f"cannot load {spec.target!r}: weights are given, but {cls.__name__}() takes none; write"
            " __init__(self, tuned_weights=None)"
        )
    constructor = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    return hints_of(constructor, cls).get(first.name)


def _describe_output(signature: Signature) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    from dumbwaiter.models.codecs import kind_of  # noqa: PLC0415

    if signature.output is None:
        return {"kind": "any"}
    kind = kind_of(signature.output)
    if kind != "json":
        return {"kind": "json" if kind == "pydantic" else kind}
    try:
        return {"kind": kind, "schema": msgspec.json.schema(signature.output)}
    except Exception:
        return {"kind": kind}  # holds arrays, images or types of the user's own, perhaps with unknown names
