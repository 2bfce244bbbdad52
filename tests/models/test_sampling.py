"""Inputs to measure a model with before the first request."""

from __future__ import annotations

import json

import pytest

from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models.arguments import Arguments


def model(serve, parameters, body="return [1]", before="", **attributes):
    lines = [f"    {name} = {value}" for name, value in attributes.items()]
    code = "\n".join(
        [
            "import numpy as np, PIL.Image, torch",
            "class Model:",
            *lines,
            *before.splitlines(),
            f"    def __call__(self, {parameters}):",
            f"        {body}",
        ]
    )
    return serve(code)


def refusal(served):
    with pytest.raises(ModelLoadError) as caught:
        served.sample(1)
    return str(caught.value)


# --- made up ----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16", None])
def test_pictures_are_noise_in_the_mode_of_the_model(serve, mode):
    served = model(serve, "images: list[PIL.Image.Image]", image_mode=repr(mode))
    pictures = served.sample(3)
    assert [(picture.size, picture.mode) for picture in pictures] == [((640, 480), mode or "RGB")] * 3
    assert len(pictures[0].convert("L").getcolors(maxcolors=256)) > 100
    assert len({id(picture) for picture in pictures}) == 3
    assert pictures[0].tobytes() == served.sample(1)[0].tobytes()
    assert served.predict(pictures[:1]) == [1]


def test_a_picture_above_the_limit_of_the_model_is_not_made_up(serve):
    code = "class Model:\n    def __call__(self, image):\n        return 1"
    assert serve(code, max_pixels=1000).sample(1) is None


def test_texts_are_a_sentence(serve):
    one, other = model(serve, "text: str").sample(2)
    assert one == other
    assert 35 <= len(one.split()) <= 45


@pytest.mark.parametrize(
    "parameters", ["numbers: list[float]", "data: dict", "x: np.ndarray", "x: torch.Tensor", "data: bytes", "anything"]
)
def test_what_has_a_shape_or_a_meaning_is_not_made_up(serve, parameters):
    assert model(serve, parameters).sample(2) is None


def test_of_several_parameters_those_are_made_up_that_must_be_given(serve):
    served = model(serve, "image: PIL.Image.Image, prompt: str, width: int = 3", "return [image.size, prompt, width]")
    [sample] = served.sample(1)
    [[size, prompt, width]] = served.predict([sample])
    assert size == (640, 480)
    assert prompt.startswith("The kitchen")
    assert width == 3


def test_where_none_must_be_given_the_first_is(serve):
    served = model(serve, "text: str = '', width: int = 3", "return [text, width]")
    [[text, width]] = served.predict(served.sample(1))
    assert text.startswith("The kitchen")
    assert width == 3


def test_of_several_parameters_none_is_made_up_when_one_cannot_be(serve):
    assert model(serve, "image: PIL.Image.Image, boxes: list[int]").sample(1) is None


# --- the class's own --------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        "    sample_inputs = [{'a': 1}, {'b': 2}]",
        "    sample_inputs = ({'a': 1}, {'b': 2})",
        "    def sample_inputs(self): return [{'a': 1}, {'b': 2}]",
        "    @staticmethod\n    def sample_inputs(): return [{'a': 1}, {'b': 2}]",
        "    @classmethod\n    def sample_inputs(cls): return [{'a': 1}, {'b': 2}]",
        "    def __init__(self): self.sample_inputs = [{'a': 1}, {'b': 2}]",
    ],
)
def test_inputs_of_the_class_are_repeated_as_often_as_needed(serve, before):
    served = model(serve, "data: dict", before=before)
    assert served.sample(5) == [{"a": 1}, {"b": 2}, {"a": 1}, {"b": 2}, {"a": 1}]
    assert served.sample(1) == [{"a": 1}]


def test_a_method_may_return_one_input(serve):
    served = model(serve, "array: np.ndarray", before="    def sample_inputs(self): return np.zeros((2, 3))")
    assert [sample.shape for sample in served.sample(2)] == [(2, 3), (2, 3)]


def test_inputs_of_the_class_go_before_those_made_up(serve):
    assert model(serve, "text: str", sample_inputs="['short']").sample(1) == ["short"]


def test_an_input_of_several_parameters_is_a_dict_of_them(serve):
    served = model(
        serve, "a: int, /, b: int = 0, *, c: int = 0", "return [a, b, c]", sample_inputs="[{'c': 3, 'a': 1}]"
    )
    [sample] = served.sample(1)
    assert isinstance(sample, Arguments)
    assert served.predict([sample]) == [[1, 0, 3]]
    assert json.loads(served.encode([1])[1]) == [1]


def test_an_input_that_only_the_first_parameter_needs_may_come_alone(serve):
    served = model(serve, "text: str, width: int = 3", "return [text, width]", sample_inputs="['short']")
    assert served.predict(served.sample(1)) == [["short", 3]]


def test_a_method_that_raises_is_named_with_what_it_raised(serve):
    told = refusal(model(serve, "data: dict", before="    def sample_inputs(self): return open('/nowhere/at/all')"))
    assert told.startswith("Model.sample_inputs() raised FileNotFoundError: ")
    assert "it is called without arguments and returns one input of the model's, or a list of them\nTraceback" in told


def test_no_input_at_all_is_refused(serve):
    assert refusal(model(serve, "data: dict", sample_inputs="[]")) == (
        "Model.sample_inputs is empty; give at least one input, or leave it out"
    )
