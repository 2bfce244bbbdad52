"""How a model is parked: by its own methods, by moving its tensors, or not at all."""

from __future__ import annotations

import inspect
from typing import Any

from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models.parking.contract import Parking
from dumbwaiter.models.parking.tensors import Tensors

_METHODS = ("park", "wake")


def parking_of(model: Any) -> Parking:
    """How *model* is parked. Raises ModelLoadError when one of park() and wake() is missing, or needs arguments."""
    own = [name for name in _METHODS if _is_method(model, name)]
    if len(own) == 1:
        [other] = set(_METHODS) - set(own)
        raise ModelLoadError(
            f"{type(model).__name__} has {own[0]}() but no {other}(): write both, park(self) to leave the device's"
            " memory and wake(self) to come back, or give that method another name"
        )
    for name in own:
        _check_arguments(model, name)
    if getattr(model, "can_park", True) is False:
        return Fixed()
    return OwnMethods(model) if own else Tensors(model)


class Fixed(Parking):
    """A model that stays where it is."""

    @property
    def can_park(self) -> bool:
        return False

    def park(self) -> None:
        """Nothing moves."""

    def wake(self) -> None:
        """Nothing moved."""


class OwnMethods(Parking):
    """A model that has park() and wake() of its own. What they raise passes through.

    park() is called while it is awake, wake() while it is parked; and also after a park() that raised, for nobody knows
    how far that went.
    """

    @property
    def can_park(self) -> bool:
        return True

    def __init__(self, model: Any) -> None:
        self._model = model
        self._is_parked = False
        self._is_awake = True

    def park(self) -> None:
        if not self._is_parked:
            self._is_awake = False
            self._model.park()
            self._is_parked = True

    def wake(self) -> None:
        if not self._is_awake:
            self._model.wake()
            self._is_parked = False
            self._is_awake = True


def _is_method(model: Any, name: str) -> bool:
    # Not by getattr() alone: an object that hands all it does not know to another one has any method.
    return inspect.getattr_static(model, name, None) is not None and callable(getattr(model, name, None))


def _check_arguments(model: Any, name: str) -> None:
    try:
        signature = inspect.signature(getattr(model, name))
    except (TypeError, ValueError):
        return  # written in C, or nothing that inspect knows
    try:
        signature.bind()
    except TypeError as error:
        raise ModelLoadError(
            f"{type(model).__name__}.{name}{signature} cannot be called without arguments ({error});"
            f" write {name}(self), or give that method another name"
        ) from None
