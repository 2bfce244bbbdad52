"""How a loaded model is parked: by itself, without its help, or not at all."""

from __future__ import annotations

import pytest
import torch
from cards import Card

from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.models.loading import ServedModel, _inputs
from dumbwaiter.models.parking.tensors import Tensors
from dumbwaiter.models.signature import read_signature

OWN = """
class Model:
    def __init__(self):
        self.calls = []
        self.fails = False

    def __call__(self, text: str) -> list[str]:
        return [*self.calls, "call"]

    def park(self):
        self.calls.append("park")
        if self.fails:
            raise OSError("no room on the disk")

    def wake(self, quickly=True):
        self.calls.append("wake")
        if self.fails:
            raise MemoryError("no room on the device")
"""


class Doubling:
    def __init__(self):
        self.network = torch.nn.Linear(2, 2, bias=False)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.network(tensor)


def complaint(serve, code):
    with pytest.raises(ModelLoadError) as caught:
        serve(code)
    return str(caught.value)


def test_a_model_with_park_and_wake_of_its_own_is_parked_by_them(serve):
    model = serve(OWN)
    assert model.can_park
    model.wake()
    model.park()
    model.park()
    model.wake()
    model.wake()
    assert model.predict(["a"]) == [["park", "wake", "call"]]


def test_a_parked_model_that_is_called_wakes_first(serve):
    model = serve(OWN)
    model.park()
    assert model.predict(["a"]) == [["park", "wake", "call"]]


def test_a_model_whose_park_failed_is_woken_before_it_is_called(serve):
    model = serve(OWN)
    model._model.fails = True
    with pytest.raises(OSError, match="no room on the disk"):
        model.park()
    with pytest.raises(MemoryError):
        model.predict(["a"])
    model._model.fails = False
    assert model.predict(["a"]) == [["park", "wake", "wake", "call"]]


def test_park_can_be_tried_again_after_it_failed(serve):
    model = serve(OWN)
    model._model.fails = True
    with pytest.raises(OSError, match="no room on the disk"):
        model.park()
    model._model.fails = False
    model.park()
    assert model.predict(["a"]) == [["park", "park", "wake", "call"]]


@pytest.mark.parametrize(("there", "missing"), [("park", "wake"), ("wake", "park")])
def test_one_of_the_two_alone_is_refused(serve, there, missing):
    code = f"""
    class Model:
        def __call__(self, text: str):
            return text

        def {there}(self):
            pass
    """
    assert complaint(serve, code).startswith(
        f"cannot load 'network:Model': Model has {there}() but no {missing}(): write both, park(self) to leave"
    )


def test_one_that_needs_arguments_is_refused(serve):
    told = complaint(serve, OWN.replace("def park(self)", "def park(self, car)"))
    assert told == (
        "cannot load 'network:Model': Model.park(car) cannot be called without arguments (missing a required argument:"
        " 'car'); write park(self), or give that method another name"
    )


def test_attributes_of_those_names_that_are_no_methods_mean_nothing(serve):
    model = serve("""
    class Model:
        park = "Tivoli"

        def __call__(self, text: str):
            return self.park
    """)
    assert not model.can_park
    assert model.predict(["a"]) == ["Tivoli"]


def test_an_object_that_passes_every_name_on_has_no_methods_of_its_own(serve):
    model = serve("""
    class Model:
        def __call__(self, text: str):
            return text

        def __getattr__(self, name):
            return lambda car: None
    """)
    assert not model.can_park


def test_a_model_may_say_that_it_stays_where_it_is(serve):
    model = serve(OWN.replace("class Model:", "class Model:\n    can_park = False\n"))
    assert not model.can_park
    model.park()
    model.wake()
    assert model.predict(["a"]) == [["call"]]


def test_a_model_on_the_cpu_cannot_be_parked(serve):
    model = serve("""
    import torch


    class Model:
        def __init__(self):
            self.network = torch.nn.Linear(2, 2)

        def __call__(self, tensor: torch.Tensor):
            return self.network(tensor)
    """)
    assert not model.can_park
    model.park()
    assert len(model.predict([torch.zeros(2)])) == 1


def test_a_network_is_parked_and_woken_by_the_next_batch_without_the_help_of_its_class():
    instance = Doubling()
    signature = read_signature(Doubling)
    inputs = _inputs(Doubling, signature, ModelSpec(name="m", target="m:M"))
    parking = Tensors(instance, lambda _: Card())
    model = ServedModel(instance, signature, inputs, max_batch=1, parking=parking)
    [before] = model.predict([torch.ones(2)])
    model.park()
    assert instance.network.weight.untyped_storage().nbytes() == 0
    [after] = model.predict([torch.ones(2)])
    assert torch.equal(before, after)
