"""NumPy arrays and torch tensors: ``.npy`` bodies and nested JSON lists.

A ``.npy`` header is believed only as far as the body behind it reaches, and nothing is unpickled.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from dumbwaiter.content_types import JSON, NPY, ContentType, parse_content_type
from dumbwaiter.errors import BadInputError, MissingExtraError, ModelLoadError, PermanentError
from dumbwaiter.models.codecs_json import decode_json
from dumbwaiter.models.input_codec import Buffer, InputCodec, from_data_url, name_of, one_line

if TYPE_CHECKING:
    from types import ModuleType

_EXPECTED = "an array as application/x-npy or nested JSON lists of numbers"
_MAGIC = b"\x93NUMPY"
_KINDS = "biufc"  # booleans and numbers: no objects, text, records or dates
_MAX_DIMENSIONS = 64
_HEADER_READERS = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}


class ArrayCodec(InputCodec):
    """Bodies as numpy.ndarray, writable and in native byte order; of *dtype* when the annotation says one."""

    kind = "array"
    cheap = False
    content_types = (NPY, JSON)

    def __init__(self, dtype: Any = None) -> None:
        self._dtype = None if dtype is None else _numpy().dtype(dtype)
        if self._dtype is not None and self._dtype.kind not in _KINDS:
            raise ModelLoadError(f"no input can be decoded as an array of {self._dtype}; only numbers and booleans")

    def from_body(self, content_type: ContentType, body: Buffer) -> Any:
        if content_type.is_npy or (content_type.opaque and is_npy(body)):
            return self._cast(decode_npy(body))
        if content_type.is_json or content_type.is_text or content_type.opaque:
            return self.from_json(decode_json(body))
        raise BadInputError(f"expected {_EXPECTED}, got {one_line(content_type.essence, 60)}")

    def from_json(self, value: Any) -> Any:
        return self._cast(_from_data_url(value) if isinstance(value, str) else _array_of(value))

    def schema(self) -> dict[str, Any]:
        return {"type": ["array", "number", "boolean"], "description": f"nested lists of {self._dtype or 'numbers'}"}

    def _cast(self, array: Any) -> Any:
        if self._dtype is None or array.dtype == self._dtype:
            return array
        try:
            with _numpy().errstate(all="ignore"):
                cast = array.astype(self._dtype)
        except ValueError as error:  # a zero beside lengths that NumPy can count in this type's smaller items only
            raise BadInputError(f"expected an array of {self._dtype}; this one's shape: {one_line(error)}") from None
        if not _fits(array, cast):
            raise BadInputError(f"expected an array of {self._dtype}; these values are {array.dtype} and do not fit")
        return cast


class TensorCodec(InputCodec):
    """Bodies as torch.Tensor on the CPU. JSON numbers with a point become torch's default float type."""

    kind = "tensor"
    cheap = False
    content_types = (NPY, JSON)

    def __init__(self) -> None:
        self._arrays = ArrayCodec()

    def from_body(self, content_type: ContentType, body: Buffer) -> Any:
        said_npy = content_type.is_npy or (content_type.opaque and is_npy(body))
        return _tensor_of(self._arrays.from_body(content_type, body), exact=said_npy)

    def from_json(self, value: Any) -> Any:
        return _tensor_of(self._arrays.from_json(value), exact=isinstance(value, str))

    def schema(self) -> dict[str, Any]:
        return self._arrays.schema()


def is_npy(body: Buffer) -> bool:
    """Whether *body* starts as a ``.npy`` file does."""
    return bytes(body[: len(_MAGIC)]) == _MAGIC


def decode_npy(body: Buffer) -> Any:
    """The array of a ``.npy`` file, checked against its header before anything is allocated. Raises BadInputError."""
    numpy = _numpy()
    file = io.BytesIO(body)
    shape, fortran_order, dtype = _read_header(numpy.lib.format, file)
    start = file.tell()
    _check_npy(shape, dtype, len(body) - start)
    flat = numpy.frombuffer(body, dtype=dtype, offset=start, count=math.prod(shape))
    try:
        array = flat.reshape(shape, order="F" if fortran_order else "C")
    except (ValueError, TypeError, OverflowError) as error:  # a zero beside lengths that NumPy cannot count
        raise BadInputError(f"the .npy body has an impossible shape: {one_line(error)}") from None
    return array.astype(dtype.newbyteorder("="), copy=True)


def encode_npy(array: Any) -> bytes:
    """*array* (NumPy) as a ``.npy`` file. Raises PermanentError for arrays of objects."""
    numpy = _numpy()
    file = io.BytesIO()
    try:
        numpy.save(file, array, allow_pickle=False)
    except ValueError as error:
        raise PermanentError(f"cannot encode this array of {array.dtype} as .npy: {one_line(error)}") from None
    return file.getvalue()


def tensor_to_array(tensor: Any) -> Any:
    """*tensor* (torch, on any device) as a NumPy array; types that NumPy lacks become float32."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.layout != _torch().strided:
        plain = plain.to_dense()
    try:
        return plain.numpy()
    except TypeError:
        return plain.float().numpy()


def _read_header(npy_format: Any, file: io.BytesIO) -> tuple[tuple[int, ...], bool, Any]:
    try:
        version = npy_format.read_magic(file)
        if version in _HEADER_READERS:
            shape, fortran_order, dtype = getattr(npy_format, _HEADER_READERS[version])(file)
            return shape, fortran_order, dtype
    except Exception as error:  # the header is a Python literal, and a hostile one raises anything
        raise BadInputError(f"the .npy body has a damaged header: {one_line(error)}") from None
    raise BadInputError(f"the .npy body has version {version}; write plain numbers, which need 1.0 or 2.0")


def _check_npy(shape: Any, dtype: Any, nbytes: int) -> None:
    if dtype.hasobject or dtype.kind not in _KINDS:
        raise BadInputError(f"the .npy body holds {one_line(dtype, 60)}; only numbers and booleans are taken")
    if len(shape) > _MAX_DIMENSIONS or any(length < 0 for length in shape):
        raise BadInputError(f"the .npy body has an impossible shape: {one_line(shape, 60)}")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != nbytes:
        raise BadInputError(
            f"the .npy header says shape {one_line(shape, 60)} of {dtype}, {wanted} bytes; the body has {nbytes}"
        )


def _from_data_url(value: str) -> Any:
    """A ``.npy`` file inside JSON: exact, also where JSON has no such number."""
    content_type, body = from_data_url(_EXPECTED, value)
    said = parse_content_type(content_type)
    if said.is_npy or (said.opaque and is_npy(body)):
        return decode_npy(body)
    raise BadInputError(f"expected {_EXPECTED}, got a data URL of {one_line(said.essence, 60) or 'no type'}")


def _array_of(value: Any) -> Any:
    if not isinstance(value, (list, int, float)):
        raise BadInputError(f"expected {_EXPECTED}, got {name_of(value)}")
    try:
        array = _numpy().asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise BadInputError(f"expected {_EXPECTED}: {one_line(error)}") from None
    if array.dtype.kind not in _KINDS:
        raise BadInputError(f"expected {_EXPECTED}; these lists hold something else, or numbers beyond 64 bits")
    return array


def _fits(array: Any, cast: Any) -> bool:
    """Whether *cast* means the same as *array*: no integer wrapped round, nothing became infinite."""
    numpy = _numpy()
    if array.dtype.kind in "iu" and cast.dtype.kind in "iu":
        return bool(numpy.array_equal(cast, array))
    if not numpy.can_cast(array.dtype, cast.dtype, "same_kind"):
        return False
    return bool(cast.dtype.kind not in "fc" or numpy.array_equal(numpy.isfinite(cast), numpy.isfinite(array)))


def _tensor_of(array: Any, *, exact: bool) -> Any:
    torch = _torch()
    try:
        tensor = torch.from_numpy(array)
    except TypeError as error:
        raise BadInputError(f"torch has no tensors of {array.dtype}: {one_line(error)}") from None
    if exact or not tensor.is_floating_point():
        return tensor
    cast = tensor.to(torch.get_default_dtype())
    if not torch.isfinite(cast).all():  # JSON has no infinity
        raise BadInputError(f"expected numbers that fit {cast.dtype}; some of these are too large")
    return cast


def _numpy() -> ModuleType:
    try:
        import numpy as np  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise MissingExtraError("numpy", "numpy") from None
    return np


def _torch() -> ModuleType:
    try:
        import torch  # noqa: PLC0415 - an extra, and slow to import
    except ModuleNotFoundError:
        raise MissingExtraError("torch", "torch") from None
    return torch
