"""Which torch tensors an object holds, wherever they are in it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: How far from the model, or from the last torch module on the way, is looked.
_DEEPEST = 8
#: Of a longer list, what is further behind is not looked at; nor is any more once so many objects were opened.
_MOST = 200_000
#: Nothing can be in these.
_PLAIN = frozenset({str, bytes, bytearray, int, float, complex, bool, type(None), range, slice})
_SEQUENCES = (list, tuple, set, frozenset, deque)
#: These have no attributes.
_BUILT_IN = frozenset({*_SEQUENCES, dict, OrderedDict})


def find_storages(root: Any, torch: Any, moves: Callable[[Any], bool]) -> list[Any]:
    """The storages that *moves* says yes to, of all tensors that *root* holds: each once, always in the same order, and
    none that is empty.

    Those are left out that torch did not allocate itself (of a numpy array, another process, another framework), for
    they cannot be emptied, as is what overlaps them. Tensors without a storage of their own (sparse ones) have none
    here. An empty list, when there is a CUDA graph: it has the addresses.
    """
    found: dict[int, Any] = {}
    foreign: list[range] = []
    for value in walk(root, torch):
        if issubclass(type(value), torch.cuda.CUDAGraph):
            return []
        storage = _storage_of(value) if issubclass(type(value), torch.Tensor) else None
        if storage is None or not moves(storage):
            continue
        if storage.resizable():
            found[storage.data_ptr()] = storage
        else:
            foreign.append(_addresses(storage))
    return [storage for storage in found.values() if not _touches(_addresses(storage), foreign)]


def walk(root: Any, torch: Any) -> Iterator[Any]:
    """*root*, its class's attributes and all that they hold, each object once, from the nearest to the farthest.

    Nothing of the user's runs: no property, no __getattr__, no iterator.
    """
    seen = {id(root): root}
    waiting: deque[tuple[Any, int]] = deque([(root, 0)])
    more: Iterable[Any] = _class_attributes(type(root))
    for _ in range(_MOST):
        if not waiting:
            return
        value, depth = waiting.popleft()
        yield value
        if issubclass(type(value), torch.nn.Module):
            depth = 0
        for one in itertools.chain(more, _contents(value, torch)) if depth < _DEEPEST else ():
            if type(one) not in _PLAIN and id(one) not in seen and _may_hold_some(one):
                seen[id(one)] = one
                waiting.append((one, depth + 1))
        more = ()


def _may_hold_some(value: Any) -> bool:
    kind = type(value)
    if kind in _BUILT_IN:
        # A torch module has ten empty dicts for its hooks, and a tokenizer ten thousand pairs of words.
        return not _PLAIN.issuperset(map(type, dict.values(value) if issubclass(kind, dict) else value))
    return not issubclass(kind, (type, types.ModuleType))


def _storage_of(tensor: Any) -> Any:
    """None where there is none, or nothing in it."""
    try:
        storage = tensor.untyped_storage()
        return storage if storage.nbytes() and storage.data_ptr() else None
    except Exception:  # sparse, not yet initialised, or of a class that allows less than a tensor does
        return None


def _addresses(storage: Any) -> range:
    start = storage.data_ptr()
    return range(start, start + storage.nbytes())


def _touches(one: range, others: list[range]) -> bool:
    return any(one.start < other.stop and other.start < one.stop for other in others)


def _contents(value: Any, torch: Any) -> Iterable[Any]:
    kind = type(value)
    if kind in _FUNCTIONS:
        return _FUNCTIONS[kind](value)
    inside: list[Any] = []
    if issubclass(kind, dict):
        inside = list(itertools.islice(dict.values(value), _MOST))
    elif sequence := next((one for one in _SEQUENCES if issubclass(kind, one)), None):
        # As the built-in class has them, whatever a class of the user's makes of that.
        inside = list(itertools.islice(sequence.__iter__(value), _MOST))
    elif issubclass(kind, torch.jit.ScriptModule):
        inside = [*value.parameters(), *value.buffers()]
    elif issubclass(kind, torch.Tensor):
        inside = _tensors_inside(value)
    return inside if kind in _BUILT_IN else inside + _attributes(value)


def _tensors_inside(tensor: Any) -> list[Any]:
    """What a tensor is made of whose class only wraps others: weights of 4 or 8 bits with their scales."""
    try:
        return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    except Exception:  # no such tensor; or one that does not say
        return []


def _attributes(value: Any) -> list[Any]:
    """What is in ``__dict__`` and in ``__slots__``."""
    try:
        found = list(object.__getattribute__(value, "__dict__").values())
    except Exception:  # it has none, or its class makes something else of it
        found = []
    for slot in _slots(type(value)):  # type: ignore[arg-type]  # mypy: a class may not be hashable
        with contextlib.suppress(Exception):  # nothing was put there yet
            found.append(slot.__get__(value))
    return found


@functools.lru_cache(maxsize=1024)
def _slots(cls: type) -> tuple[types.MemberDescriptorType, ...]:
    members = (member for parent in cls.__mro__ for member in vars(parent).values())
    return tuple(member for member in members if isinstance(member, types.MemberDescriptorType))


def _class_attributes(cls: type) -> list[Any]:
    return [value for parent in cls.__mro__ for value in vars(parent).values()]


def _cell(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # empty
        return ()


#: These hold far more than what they were made from: a function has all of its module's names.
_FUNCTIONS: dict[type, Callable[[Any], Iterable[Any]]] = {
    types.FunctionType: lambda function: (*(function.__closure__ or ()), *vars(function).values()),
    types.MethodType: lambda method: (method.__self__, method.__func__),
    types.BuiltinFunctionType: lambda function: (function.__self__,),
    types.CellType: _cell,
    functools.partial: lambda partial: (partial.func, partial.args, partial.keywords),
    property: lambda _: (),
}
