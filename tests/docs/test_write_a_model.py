"""docs/write-a-model.md: every class on it can be served, and its table of annotations is what the codecs do."""

from __future__ import annotations

import re
import subprocess
import sys

import msgspec
import numpy as np
import numpy.typing as npt
import PIL.Image
import pydantic
import pytest
from sessions import DOCS, blocks

from dumbwaiter.errors import BadInputError
from dumbwaiter.models.codecs import input_codec
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.models.loading import load_model

PAGE = DOCS / "write-a-model.md"
CLASSES = {
    re.search(r"^class (\w+)", block.text, re.MULTILINE)[1]: block.text
    for block in blocks(PAGE, "python")
    if re.search(r"^class ", block.text, re.MULTILINE)
}


@pytest.fixture
def served(tmp_path, imports_are_forgotten):
    """The class of this name on the page, loaded as a worker loads it."""

    def load(name, **spec):
        module = f"page_{name.lower()}"
        (tmp_path / f"{module}.py").write_text(CLASSES[name])
        return load_model(ModelSpec(name=name.lower(), target=f"{module}:{name}", project=str(tmp_path), **spec))

    return load


def outcome(model, content_type, *bodies):
    outputs = model.predict([model.decode(content_type, body) for body in bodies])
    return [output if isinstance(output, Exception) else model.encode(output)[1] for output in outputs]


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_the_page_can_be_served(name, served):
    assert served(name).describe()["input"]


def test_a_list_in_and_out_is_batched_unless_the_class_says_no(served):
    assert served("Lengths").max_batch == 64
    assert outcome(served("Lengths"), "text/plain", b"a", b"bcd") == [b"1", b"3"]
    assert outcome(served("Total"), "application/json", b"[1, 2]") == [b"[3.0]"]


def test_a_class_without_annotations_takes_images_by_its_parameters_name(served):
    assert served("Infer").describe()["input"]["kind"] == "image"


def test_several_parameters_are_an_object_or_the_first_alone(served):
    model = served("Resize")
    assert model.describe()["input"]["schema"]["required"] == ["image"]
    with pytest.raises(BadInputError, match="unknown input 'wide'; did you mean 'width'"):
        model.decode("application/json", b'{"image": "data:,", "wide": 3}')


def test_the_parts_of_a_generator_arrive_as_one_list(served):
    assert outcome(served("Words"), "text/plain", b"a b") == [b'["a","b"]']


def test_parameters_are_keyword_arguments(served):
    assert outcome(served("Voice", parameters={"end": "?"}), "text/plain", b"who") == [b"who?"]


def test_a_wrong_input_says_why_and_in_a_batch_fails_alone(served):
    with pytest.raises(BadInputError, match="has no real root; send a number from 0 on"):
        served("Root").predict([-1.0])
    good, bad = outcome(served("Roots"), "application/json", b"4", b"-4")
    assert good == b"2.0"
    assert isinstance(bad, BadInputError)


def test_loading_a_class_by_hand_works_as_shown(tmp_path):
    (shown,) = [block.text for block in blocks(PAGE, "python") if "load_model" in block.text]
    (tmp_path / "lengths.py").write_text(CLASSES["Lengths"])
    subprocess.run([sys.executable, "-c", shown], cwd=tmp_path, check=True)


ANNOTATIONS = {
    "`PIL.Image.Image`": [PIL.Image.Image],
    "`numpy.ndarray`": [np.ndarray],
    "`numpy.typing.NDArray[numpy.float32]`": [npt.NDArray[np.float32]],
    "`torch.Tensor`": [],  # torch takes seconds to import; tests/models has it
    "`str`": [str],
    "`bytes`": [bytes],
    "`dict`, `list[float]`, `int`, `msgspec.Struct`, a dataclass, a `TypedDict` …": [
        *(dict, list[float], int),
        msgspec.defstruct("Point", [("x", int)]),
    ],
    "a `pydantic.BaseModel`": [pydantic.create_model("Point", x=(int, ...))],
    "`typing.Any`, or none": [None],
}


def test_the_table_of_annotations_is_what_the_codecs_do():
    table = re.findall(r"^\| (.+?) \| `(\w+)` \| .+? \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    told = {annotation: (kind, types) for annotation, kind, types in table if annotation in ANNOTATIONS}
    assert set(told) == set(ANNOTATIONS)
    for text, types_of_row in ANNOTATIONS.items():
        kind, types = told[text]
        for annotation in types_of_row:
            codec = input_codec(annotation, "value", image_mode="RGB", max_pixels=1000)
            assert codec.kind == kind, text
            if types not in {"any", "as above"}:
                assert re.findall(r"`([\w./-]+)`", types) == list(codec.content_types), text
