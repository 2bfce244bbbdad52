"""Parking: a loaded model's weights wait in host memory while others use the device, and come back when it has work.

The model needs to know nothing of it. What is moved are storages: the pieces of memory that torch's tensors look into.
A storage is emptied and filled again in place, so every tensor, Parameter and view of it stays the object that it was,
wherever it is held; what is tied stays tied, and what was laid out in one piece stays in one.

A model that keeps memory outside torch, or addresses of its tensors, brings methods park() and wake() of its own, or
says ``can_park = False``.
"""

from dumbwaiter.models.parking.choosing import parking_of
from dumbwaiter.models.parking.contract import Parking

__all__ = ["Parking", "parking_of"]
