"""Where in a user's object the tensors are that can be moved."""

from __future__ import annotations

import functools
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from dumbwaiter.models.parking.finding import find_storages, walk


class Thing:
    """A user's object."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("__hidden", "nothing")

    def __init__(self, value):
        self.__hidden = value


class Wary:
    """Its attributes are read by nobody but itself."""

    def __init__(self, value):
        self.__dict__["value"] = value

    def __getattr__(self, name):
        raise AssertionError(f"{name} was asked for")

    @property
    def costly(self):
        raise AssertionError("a property was read")


class Tokens(dict):
    def values(self):
        raise AssertionError("a method of the user's was called")

    __iter__ = values


class Words(list):
    def __iter__(self):
        raise AssertionError("a method of the user's was called")


class ClassWide:
    weights = torch.zeros(3)


def chain(length, end):
    for _ in range(length):
        end = [end]
    return end


def deep(levels):
    network = nn.Linear(1, 1, bias=False)
    for _ in range(levels):
        network = nn.Sequential(network)
    return network


def closure(value):
    return lambda x: x + value


def cyclic(value):
    one, other = Thing(value=value), Thing()
    one.other, other.one = other, one
    return [other, one]


def nbytes(root):
    found = find_storages(root, torch, lambda storage: storage.device.type == "cpu")
    return [storage.nbytes() for storage in found]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: value,
        lambda value: Thing(weights=value),
        lambda value: Thing(inner=Thing(inner=Thing(weights=value))),
        Slotted,
        Wary,
        lambda value: [1, (2, {"a": [value]})],
        lambda value: OrderedDict(a=deque([value])),
        lambda value: {value},
        lambda value: Tokens(a=value),
        lambda value: Words([value]),
        lambda value: functools.partial(torch.add, other=value),
        lambda value: value.add,
        lambda value: Thing(value=value).__init__,
        closure,
        cyclic,
        lambda value: chain(7, value),
        lambda value: ["word"] * 1000 + [value],
    ],
    ids=range(17),
)
def test_a_tensor_is_found(wrap):
    assert nbytes(wrap(torch.zeros(3))) == [12]


def test_a_tensor_of_the_class_is_found():
    assert nbytes(ClassWide()) == [12]


def test_networks_may_be_nested_as_deep_as_they_like():
    assert nbytes(Thing(network=deep(200))) == [4]


def test_parts_of_one_tensor_are_one_piece_of_memory():
    whole = torch.zeros(10)
    assert nbytes([whole[2:4], whole.view(5, 2), nn.Parameter(whole), whole]) == [40]


def test_the_order_is_the_same_each_time():
    network = nn.Sequential(*[nn.Linear(width, 3) for width in range(1, 40)])
    assert nbytes(network) == nbytes(network)


def test_what_a_tensor_has_as_attributes_is_found():
    weight = torch.zeros(3)
    weight.state = Thing(scales=torch.zeros(5))
    assert sorted(nbytes(weight)) == [12, 20]


def test_the_tensors_inside_a_tensor_that_wraps_others_are_found():
    assert nbytes(Thing(weight=TwoTensor(torch.zeros(3), torch.zeros(3)))) == [12, 12]


def test_tensors_without_memory_of_their_own_are_left_out():
    lazy = nn.LazyLinear(3, bias=False)
    others = [torch.eye(3).to_sparse(), torch.zeros(0), torch.zeros(3, device="meta"), lazy]
    assert nbytes([*others, torch.zeros(3)]) == [12]


def test_memory_of_others_is_left_out_and_so_is_what_overlaps_it():
    array = np.zeros(4)
    shared = torch.zeros(10)
    alias = torch.from_dlpack(shared[3:5])
    assert nbytes([torch.from_numpy(array), torch.zeros(3), shared]) == [12, 40]
    assert nbytes([torch.from_numpy(array), torch.zeros(3), shared, alias]) == [12]


def test_a_model_with_a_cuda_graph_stays_where_it_is():
    # It is not set up: that would need a card.
    new = object.__new__ if torch.version.cuda is None else torch.cuda.CUDAGraph.__new__
    graph = new(torch.cuda.CUDAGraph)
    assert nbytes(Thing(weights=torch.zeros(3), graphs={1: graph})) == []


def test_each_object_is_looked_at_once():
    seen = [id(one) for one in walk(cyclic(nn.Sequential(nn.Linear(2, 2))), torch)]
    assert len(seen) == len(set(seen))


def test_looking_ends_however_much_there_is():
    endless = Thing()
    at = endless
    for _ in range(300_000):
        at.next = [at := Thing()]
    assert nbytes([torch.zeros(3), endless, [[number] for number in range(300_000)]]) == [12]


def test_objects_that_refuse_to_be_looked_at_are_passed_by():
    class Refusing:
        @property
        def __dict__(self):
            raise OSError

        @property
        def __class__(self):
            raise OSError

    assert nbytes([Refusing(), torch.zeros(3)]) == [12]
