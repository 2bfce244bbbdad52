"""From a class to a model that is ready to serve."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from pictures import as_file, difference, photograph
from PIL import Image

from dumbwaiter.errors import BadInputError, ModelLoadError, PermanentError

ARTICLE = """
import torch


class Infer(object):
    __slots__ = ("weights", "seen")

    def __init__(self, tuned_weights=None):
        self.weights = tuned_weights
        self.seen = []

    @torch.no_grad()
    def __call__(self, pil_image):
        assert not torch.is_grad_enabled()
        self.seen.append(pil_image)
        return [[pil_image.mode, *pil_image.size], 0.5]
"""


def complaint(serve, code, **spec):
    with pytest.raises(ModelLoadError) as caught:
        serve(code, **spec)
    return str(caught.value)


def ask(model, body, content_type="text/plain"):
    """One input through decode, predict and encode; what a caller gets."""
    [output] = model.predict([model.decode(content_type, body)])
    return model.encode(output)


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_the_article_class_is_served_unchanged_and_gets_a_pil_image(serve, name):
    model = serve(ARTICLE, "Infer")
    original = photograph(name)
    content_type, body = ask(model, as_file(original, "JPEG", quality=95), "image/jpeg")
    assert content_type == "application/json"
    assert json.loads(body) == [["RGB", *original.size], 0.5]
    [seen] = model._model.seen
    assert isinstance(seen, Image.Image)
    assert difference(seen, original) < 5
    assert model._model.weights is None


def test_the_article_class_says_what_it_takes(serve):
    described = serve(ARTICLE, "Infer").describe()
    assert described["input"]["name"] == "pil_image"
    assert described["input"]["kind"] == "image"
    assert described["input"]["content_types"][:2] == ["image/jpeg", "image/png"]
    assert described["output"] == {"kind": "any"}
    assert (described["batched"], described["streaming"], described["max_batch"]) == (False, False, 1)
    json.dumps(described)


def test_the_article_class_gets_its_weights(serve, tmp_path):
    torch.save({"w": torch.eye(2)}, tmp_path / "tuned.pth")
    weights = serve(ARTICLE, "Infer", weights="tuned.pth")._model.weights
    assert torch.equal(weights["w"], torch.eye(2))


@pytest.mark.parametrize("body", [b"", memoryview(b"")])
def test_an_empty_body_is_refused_with_what_is_expected(serve, body):
    with pytest.raises(BadInputError) as caught:
        serve(ARTICLE, "Infer").decode("image/jpeg", body)
    assert str(caught.value) == "empty body; expected image/jpeg or image/png or image/webp or image/gif"


def test_a_wrong_type_is_refused_with_what_is_expected(serve):
    with pytest.raises(BadInputError, match=r"expected an image \(JPEG.*got text/plain"):
        serve(ARTICLE, "Infer").decode("text/plain", b"a cat")


def test_the_pixel_limit_is_the_spec_one(serve):
    model = serve(ARTICLE, "Infer", max_pixels=1000)
    with pytest.raises(BadInputError, match="451 x 300 = 135300 pixels, more than the limit of 1000"):
        model.decode("image/png", as_file(photograph("chelsea"), "PNG"))


def test_a_model_chooses_its_image_mode_and_a_wrong_one_is_found_at_once(serve):
    code = """
    class Model:
        image_mode = {mode!r}

        def __call__(self, image):
            return image.mode
    """
    assert ask(serve(code.format(mode="L")), as_file(photograph("chelsea"), "PNG"), None)[1] == b"L"
    assert complaint(serve, code.format(mode="grey")).startswith(
        "cannot load 'network:Model': parameter 'image': image_mode 'grey' is no mode of Pillow's"
    )


@pytest.mark.parametrize(
    ("annotation", "content_type", "body", "seen"),
    [
        ("str", "text/plain", b"hi", "'hi'"),
        ("bytes", "image/png", b"hi", "b'hi'"),
        ("dict", "application/json", b'{"a": 1}', "{'a': 1}"),
        ("list[int]", "application/json", b"[1, 2]", "[1, 2]"),
        ("np.ndarray", "application/json", b"[1, 2]", "array([1, 2])"),
        ("torch.Tensor", "application/json", b"[1, 2]", "tensor([1, 2])"),
        ("Point", "application/json", b'{"x": 1}', "Point(x=1)"),
        ("Box", "application/json", b'{"x": 1}', "Box(x=1)"),
        ("Order", "application/json", b'{"dish": "soup"}', "Order(dish='soup')"),
    ],
)
def test_each_annotation_gets_its_kind_of_input(serve, annotation, content_type, body, seen):
    code = f"""
    import dataclasses, msgspec, numpy as np, pydantic, torch

    class Point(msgspec.Struct):
        x: int

    @dataclasses.dataclass
    class Box:
        x: int

    class Order(pydantic.BaseModel):
        dish: str

    class Model:
        def __call__(self, given: {annotation}) -> str:
            return repr(given)
    """
    model = serve(code)
    assert ask(model, body, content_type) == ("text/plain; charset=utf-8", seen.encode())
    assert model.describe()["output"] == {"kind": "text"}


def test_several_parameters_come_by_name(serve):
    model = serve(
        """
        class Model:
            def __call__(self, text: str, times: int = 1, *, end: str = "") -> str:
                return text * times + end
        """
    )
    assert ask(model, b"ab")[1] == b"ab"
    assert ask(model, b'{"text": "ab", "times": 2, "end": "!"}', "application/json")[1] == b"abab!"
    assert ask(model, b'{"text": "ab", "end": "!"}', "application/json")[1] == b"ab!"
    assert model.cheap_decode
    assert model.describe()["input"]["kind"] == "arguments"


BATCHED = """
import numpy as np


class Model:
    {attributes}

    def __call__(self, texts: list[str]) -> list[str]:
        return {result}
"""


def batched(serve, result, attributes="pass", **spec):
    return serve(BATCHED.format(result=result, attributes=attributes), **spec)


def test_a_batch_is_one_call_and_keeps_its_order(serve):
    model = batched(serve, "[f'{text}/{len(texts)}' for text in texts]")
    assert model.predict(["a", "b", "c"]) == ["a/3", "b/3", "c/3"]
    assert model.predict(["a"]) == ["a/1"]
    assert model.predict([]) == []


@pytest.mark.parametrize("result", ["texts[:-1]", "[*texts, 'x']", "[]", "(text for text in texts[1:])"])
def test_a_batch_of_another_length_is_a_permanent_error_with_both_lengths(serve, result):
    with pytest.raises(PermanentError, match=r"^the model took a batch of 3 inputs and returned [0-4] outputs$"):
        batched(serve, result).predict(["a", "b", "c"])


@pytest.mark.parametrize("result", ["'abc'", "None", "{'a': 1, 'b': 2, 'c': 3}", "{1, 2, 3}", "3", "np.array(3)"])
def test_a_batch_that_is_no_list_is_a_permanent_error(serve, result):
    with pytest.raises(PermanentError, match=r"the model took a batch of 3 and returned a .*returns a list"):
        batched(serve, result).predict(["a", "b", "c"])


@pytest.mark.parametrize("result", ["tuple(texts)", "(text for text in texts)"])
def test_tuples_and_generators_are_lists_too(serve, result):
    assert batched(serve, result).predict(["a", "b"]) == ["a", "b"]


def test_arrays_and_tensors_are_split_into_rows(serve):
    model = serve(
        """
        import numpy as np, torch

        class Model:
            def __call__(self, xs: list[np.ndarray]) -> torch.Tensor:
                return torch.from_numpy(np.stack(xs)) * 2
        """
    )
    rows = model.predict([np.array([1.0, 2.0]), np.array([3.0, 4.0])])
    assert [row.tolist() for row in rows] == [[2, 4], [6, 8]]
    assert model.encode(rows[0])[0] == "application/x-npy"
    assert model.describe()["output"] == {"kind": "tensor"}


def test_an_exception_in_one_place_of_a_batch_stays_there(serve):
    outputs = batched(serve, "[ValueError(text) if text == 'b' else text for text in texts]").predict(["a", "b"])
    assert outputs[0] == "a"
    assert isinstance(outputs[1], ValueError)


def test_what_a_batch_raises_passes_through(serve):
    with pytest.raises(ZeroDivisionError):
        batched(serve, "1 / 0").predict(["a", "b"])


def test_a_class_that_takes_one_input_is_called_for_each_and_each_fails_alone(serve):
    model = serve("class Model:\n    def __call__(self, x: int) -> float:\n        return 1 / x")
    one, failed, two = model.predict([1, 0, 2])
    assert (one, two) == (1.0, 0.5)
    assert isinstance(failed, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        model.predict([0])


def test_a_generator_gives_a_list_of_its_parts(serve):
    model = serve("class Model:\n    def __call__(self, text: str):\n        yield from text")
    assert json.loads(ask(model, b"abc")[1]) == ["a", "b", "c"]
    assert model.describe()["streaming"]


def test_each_chunk_of_a_generator_is_heard_as_it_is_yielded(serve):
    model = serve("class Model:\n    def __call__(self, text: str):\n        yield from text")
    heard = []
    assert model.predict(["abc"], heard.append) == [["a", "b", "c"]]
    assert heard == ["a", "b", "c"]
    assert serve("class Model:\n    def __call__(self, x: str) -> str: return x").predict(["a"], heard.append) == ["a"]
    assert len(heard) == 3, "what is no generator has no chunks"


def test_a_generator_whose_chunks_are_refused_is_closed(serve):
    model = serve(
        """
        class Model:
            closed = 0

            def __call__(self, text: str):
                try:
                    yield from text
                finally:
                    Model.closed += 1
        """
    )
    heard = []

    def refuse(chunk):
        heard.append(chunk)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.predict(["abc"], refuse)
    assert heard == ["a"]
    assert model._model.closed == 1


def test_an_output_that_cannot_be_encoded_is_a_permanent_error(serve):
    model = serve("class Model:\n    def __call__(self, text: str):\n        return [float(text)]")
    with pytest.raises(PermanentError, match=r"JSON cannot carry nan - at `\$\[0\]`"):
        ask(model, b"nan")


@pytest.mark.parametrize(
    ("attributes", "spec", "max_batch"),
    [("pass", {}, 32), ("max_batch = 7", {}, 7), ("max_batch = 7", {"max_batch": 3}, 3)],
)
def test_the_largest_batch_is_the_specs_or_the_classes_own_or_32(serve, attributes, spec, max_batch):
    assert batched(serve, "texts", attributes, **spec).max_batch == max_batch


@pytest.mark.parametrize("wrong", ["0", "-1", "True", "'8'", "2.5"])
def test_a_largest_batch_that_is_no_whole_number_is_refused(serve, wrong):
    with pytest.raises(ModelLoadError, match=r"cannot load 'network:Model': max_batch must be a whole number above 0"):
        batched(serve, "texts", f"max_batch = {wrong}")


def test_parameters_go_to_the_constructor(serve):
    model = serve(
        "class Model:\n    def __init__(self, *, k): self.k = k\n    def __call__(self, x: int): return x * self.k",
        parameters={"k": 3},
    )
    assert model.predict([2]) == [6]


FAILING = """
class Model:
    def __init__(self{parameters}):
        {body}

    def __call__(self, text: str): return text
"""


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise ValueError('no such layer')", "ValueError: no such layer"),
        ("raise SystemExit(2)", "SystemExit: 2"),
        ("exit('bye')", "SystemExit: bye"),
        ("open('/no/such/file')", "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"),
        ("e = KeyError('w'); e.add_note('see the docs'); raise e", "KeyError: 'w'"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_a_constructor_that_raises_says_why_in_the_first_line_and_where_below(serve, body, line):
    first, _, trace = complaint(serve, FAILING.format(parameters="", body=body)).partition("\n")
    assert first == f"cannot load 'network:Model': Model() raised {line}"
    assert "network.py" in trace
    assert "in __init__" in trace
    assert "loading.py" not in trace


def test_a_constructor_that_raises_a_load_error_speaks_for_itself(serve):
    body = "from dumbwaiter.errors import ModelLoadError; raise ModelLoadError('buy a licence')"
    assert complaint(serve, FAILING.format(parameters="", body=body)) == "buy a licence"


def test_a_constructor_that_needs_weights_asks_for_them(serve):
    first = complaint(serve, FAILING.format(parameters=", weights", body="pass")).partition("\n")[0]
    assert first.endswith("missing 1 required positional argument: 'weights'; give it weights with --weights")


def test_a_constructor_that_takes_no_weights_says_how_to_take_them(serve, tmp_path):
    (tmp_path / "labels.txt").touch()
    for parameters in ("", ", **options", ", *, key=1"):
        said = complaint(serve, FAILING.format(parameters=parameters, body="pass"), weights="labels.txt")
        assert said == (
            "cannot load 'network:Model': weights are given, but Model() takes none; write"
            " __init__(self, tuned_weights=None)"
        )


def test_a_class_whose_constructor_cannot_be_inspected_is_still_served(serve):
    assert serve("class Model(dict):\n    def __call__(self, text: str): return text").predict(["a"]) == ["a"]
    assert "takes none" in complaint(serve, "class Model(dict):\n    def __call__(self, t: str): ...", weights="x")


@pytest.mark.parametrize(("annotation", "kind"), [("str", "str"), ("Path", "PosixPath"), ("Path | None", "PosixPath")])
def test_a_constructor_that_wants_a_path_gets_one(serve, tmp_path, annotation, kind):
    torch.save({}, tmp_path / "w.pth")
    code = FAILING.format(parameters=f", weights: {annotation}", body="self.weights = weights")
    weights = serve("from pathlib import Path\n" + code, weights="w.pth")._model.weights
    assert type(weights).__name__ == kind
    assert str(weights) == str(tmp_path / "w.pth")


def test_a_parameter_that_no_body_can_become_is_named(serve):
    said = complaint(serve, "class Own: ...\nclass Model:\n    def __call__(self, text: str, own: Own): ...")
    assert said.startswith("cannot load 'network:Model': parameter 'own': no input can be decoded as Own: ")


def test_an_extra_that_is_not_installed_is_a_load_error_that_names_it(serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert complaint(serve, "class Model:\n    def __call__(self, pil_image): ...") == (
        "cannot load 'network:Model': pillow is not installed; install it with: pip install 'dumbwaiter[image]'"
    )


@pytest.mark.parametrize(
    ("annotation", "described"),
    [
        ("list[int]", {"kind": "json", "schema": {"type": "array", "items": {"type": "integer"}}}),
        ("Order", {"kind": "json"}),
        ("dict[str, Own]", {"kind": "json"}),
        ("Broken", {"kind": "json"}),
        ("bytes", {"kind": "bytes"}),
    ],
)
def test_the_output_is_described_as_far_as_it_can_be(serve, annotation, described):
    model = serve(
        f"""
        from __future__ import annotations
        import dataclasses, pydantic

        class Own: ...

        class Order(pydantic.BaseModel):
            dish: str

        @dataclasses.dataclass
        class Broken:
            x: Missing

        class Model:
            def __call__(self, text: str) -> {annotation}: ...
        """
    )
    assert model.describe()["output"] == described
