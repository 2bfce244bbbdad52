"""What a class takes and gives, read from its annotations."""

from __future__ import annotations

import functools
import sys
import types
import typing
from collections.abc import Generator, Iterable, Iterator, Sequence

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import Image

from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models.signature import read_signature


def complaint(cls):
    with pytest.raises(ModelLoadError) as caught:
        read_signature(cls)
    return str(caught.value)


def taking(function, **attributes):
    """A class whose __call__ is *function*."""
    return type("Model", (), {"__call__": function, **attributes})


def test_the_article_class_takes_one_thing_without_annotation():
    class Infer(object):  # noqa: UP004 - as the article writes it
        __slots__ = ("model",)

        @torch.no_grad()
        def __call__(self, pil_image):
            return []

    signature = read_signature(Infer)
    assert [one.name for one in signature.parameters] == ["pil_image"]
    assert (signature.item, signature.output) == (None, None)
    assert not signature.batched
    assert not signature.streaming
    assert not signature.several


def takes_images(self, images: list[Image.Image]) -> list[dict]: ...
def takes_pil_modules(self, images: list[Image]) -> list[str]: ...
def takes_sequence(self, texts: Sequence[str]) -> Sequence[float]: ...
def takes_typing_list(self, texts: typing.List[str]) -> typing.List[str]: ...  # noqa: UP006
def gives_array(self, texts: list[str]) -> np.ndarray: ...
def gives_tensor(self, texts: list[str]) -> torch.Tensor: ...
def gives_tuple(self, texts: list[str]) -> tuple[int, ...]: ...
def gives_plain_list(self, texts: list[str]) -> list: ...
def says_nothing_of_images(self, images: list[Image.Image]): ...
def with_an_option(self, texts: list[str], top: int = 3) -> list[str]: ...


@pytest.mark.parametrize(
    ("call", "item", "output"),
    [
        (takes_images, Image.Image, dict),
        (takes_pil_modules, Image.Image, str),
        (takes_sequence, str, float),
        (takes_typing_list, str, str),
        (gives_array, str, np.ndarray),
        (gives_tensor, str, torch.Tensor),
        (gives_tuple, str, int),
        (gives_plain_list, str, None),
        (says_nothing_of_images, Image.Image, None),
        (with_an_option, str, str),
    ],
)
def test_a_list_in_and_a_list_out_is_a_batch(call, item, output):
    signature = read_signature(taking(call))
    assert signature.batched
    assert (signature.item, signature.output) == (item, output)
    assert not signature.several


def one_list_one_answer(self, numbers: list[float]) -> float: ...
def says_nothing_of_numbers(self, numbers: list[float]): ...
def two_lists(self, a: list[str], b: list[str]) -> list[str]: ...
def by_name_only(self, *, texts: list[str]) -> list[str]: ...
def plain_list(self, texts: list) -> list: ...


@pytest.mark.parametrize("call", [one_list_one_answer, says_nothing_of_numbers, two_lists, by_name_only, plain_list])
def test_other_lists_are_single_inputs(call):
    assert not read_signature(taking(call)).batched


def test_a_class_attribute_overrules():
    assert read_signature(taking(one_list_one_answer, batched=True)).batched
    assert not read_signature(taking(takes_images, batched=False)).batched
    assert complaint(taking(two_lists, batched=True)) == (
        "Model.batched is True, but its __call__ does not take one list[...]"
    )


def streams_by_yield(self, text: str):
    yield text


def streams_iterator(self, text: str) -> Iterator[str]: ...
def streams_generator(self, text: str) -> Generator[str, None, None]: ...
def returns_iterable(self, text: str) -> Iterable[str]: ...


def test_generators_stream():
    assert read_signature(taking(streams_by_yield)).streaming
    assert read_signature(taking(streams_iterator)).streaming
    assert read_signature(taking(streams_generator)).output is str
    assert not read_signature(taking(returns_iterable)).streaming


def test_a_batch_cannot_stream():
    def call(self, texts: list[str]) -> list[str]:
        yield texts

    assert complaint(taking(call)).startswith("Model takes lists and is a generator; streaming is for one input")


def test_several_parameters_are_an_object_and_optional_ones_are_known():
    def call(self, image: Image.Image, /, top: int = 5, *, floor: float = 0.0, **rest): ...

    signature = read_signature(taking(call))
    assert signature.several
    assert [(one.name, one.required, one.by_position) for one in signature.parameters] == [
        ("image", True, True),
        ("top", False, True),
        ("floor", False, False),
    ]


def test_the_pil_module_in_place_of_its_class_is_understood():
    def call(self, image: Image): ...

    assert read_signature(taking(call)).item is PIL.Image.Image


def in_an_empty_module(function, result=None, **annotations):
    """*function* as if its module had imported nothing, with these annotations in quotes."""
    alone = types.FunctionType(function.__code__, {}, function.__name__)
    alone.__annotations__ = {**annotations, "return": result} if result else annotations
    return alone


def test_annotations_in_quotes_and_the_usual_names_are_found_where_they_were_imported_for_types_only():
    def call(self, image): ...

    alone = in_an_empty_module(call, image="PIL.Image.Image", result="Iterator[npt.NDArray[np.float32]]")
    signature = read_signature(taking(alone))
    assert signature.item is PIL.Image.Image
    assert signature.streaming
    alone = in_an_empty_module(call, image="torch.Tensor", result="Tensor")
    assert read_signature(taking(alone)).output is torch.Tensor


def test_a_class_of_the_model_own_may_be_named():
    class Model:
        class Answer(dict):
            pass

        def __call__(self, text: str) -> Answer: ...

    assert read_signature(Model).output is Model.Answer


def test_an_annotation_that_does_not_exist_at_run_time_is_named():
    def call(self, text: Missing): ...  # noqa: F821

    assert complaint(taking(call)) == (
        "an annotation of Model.call names 'Missing', which does not exist when the model runs; import it outside"
        " `if TYPE_CHECKING:`, or drop the annotation"
    )


def test_an_annotation_that_cannot_be_evaluated_says_why():
    def call(self, text: 1 / 0): ...

    assert complaint(taking(call)) == "an annotation of Model.call cannot be evaluated: division by zero"


def test_an_annotation_that_needs_what_is_not_installed_says_so(monkeypatch):
    def call(self, x): ...

    alone = in_an_empty_module(call, x="torch.Tensor")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert complaint(taking(alone)) == "an annotation of Model needs torch, which is not installed"


def test_a_torch_module_takes_what_its_forward_takes():
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    signature = read_signature(Net)
    assert [one.name for one in signature.parameters] == ["x"]
    assert signature.item is torch.Tensor


def test_an_inherited_call_counts():
    class Child(taking(takes_images)):
        pass

    assert read_signature(Child).batched


def test_a_decorator_that_hides_the_parameters_leaves_one_input():
    def decorate(function):
        def inner(*args, **kwargs):
            return function(*args, **kwargs)

        return inner

    signature = read_signature(taking(decorate(takes_images)))
    assert [(one.name, one.annotation) for one in signature.parameters] == [("input", None)]


def test_a_decorator_that_wraps_properly_hides_nothing():
    def decorate(function):
        @functools.wraps(function)
        def inner(*args, **kwargs):
            return function(*args, **kwargs)

        return inner

    assert read_signature(taking(decorate(takes_images))).batched


def test_a_call_that_returns_nothing_has_no_output_type():
    def call(self, text: str) -> None: ...

    assert read_signature(taking(call)).output is None


async def asynchronous(self, text): ...


async def asynchronous_stream(self, text):
    yield text


def without_input(self): ...


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (asynchronous, "Model.__call__ is async; write it as a plain def, for a device runs one batch"),
        (asynchronous_stream, "Model.__call__ is async; write it as a plain def, for a device runs one batch"),
        (without_input, "Model.__call__ takes no input; write __call__(self, input)"),
    ],
)
def test_what_cannot_be_called_with_an_input_says_what_to_write(call, said):
    assert complaint(taking(call)) == said


def test_a_class_without_a_call_method_is_told_so():
    class Model:
        pass

    assert complaint(Model) == "Model cannot be called: it has no __call__(self, input) method"


def test_a_call_that_cannot_be_inspected_is_told_so():
    said = complaint(taking(functools.partialmethod(takes_images)))
    assert said.startswith("Model.__call__ cannot be inspected: ")
    assert said.endswith("write it as a plain def")
