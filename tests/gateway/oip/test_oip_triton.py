"""NVIDIA's own client, tritonclient[http], against a real gateway, real workers and real models."""

from __future__ import annotations

import io
import json

import ml_dtypes
import numpy as np
import pytest
from pictures import as_file, difference, photograph
from PIL import Image
from serving_models import MODELS, serving_models, with_client
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import dumbwaiter

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def served(tmp_path_factory):
    async with serving_models(tmp_path_factory.mktemp("served")) as running:
        yield running


def given(name, value, *, binary=True):
    array = value if isinstance(value, np.ndarray) else np.array(value, dtype=object)
    infer_input = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return infer_input.set_data_from_numpy(array, binary_data=binary)


async def infer(served, model, *inputs, **options):
    def call(client):
        result = client.infer(model, list(inputs), **options)
        return result.as_numpy("output"), result.get_response()

    return await with_client(served.port, call)


async def error_of(served, model, *inputs, **options):
    with pytest.raises(InferenceServerException) as caught:
        await infer(served, model, *inputs, **options)
    return caught.value.status(), caught.value.message()


async def test_the_server_and_its_models_say_that_they_are_there(served):
    def look(client):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("shout")
        assert client.is_model_ready("shout", "1")
        assert not client.is_model_ready("shout", "2")
        assert not client.is_model_ready("nothing")
        return client.get_server_metadata(), client.get_model_repository_index()

    server, index = await with_client(served.port, look)
    assert (server["name"], server["version"]) == ("dumbwaiter", dumbwaiter.__version__)
    assert "binary_tensor_data" in server["extensions"]
    assert {(one["name"], one["state"]) for one in index} == {(name.lower(), "READY") for name in MODELS}


async def test_the_metadata_of_a_model_name_its_tensors(served):
    softmax, mix = await with_client(
        served.port, lambda client: [client.get_model_metadata("softmax"), client.get_model_metadata("mix", "1")]
    )
    assert softmax == {
        "name": "softmax",
        "versions": ["1"],
        "platform": "dumbwaiter",
        "inputs": [{"name": "rows", "datatype": "FP32", "shape": [-1, -1]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, -1]}],
    }
    assert [one["name"] for one in mix["inputs"]] == ["a", "b", "weight"]


DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
async def test_arrays_of_every_type_go_there_and_back(served, binary):
    def call(client):
        asked = [InferRequestedOutput("output", binary_data=binary)]
        for dtype in DTYPES:
            array = np.array([[0, 1, 3], [4, 5, 6]]).astype(dtype)
            result = client.infer("double", [given("x", array, binary=binary)], outputs=asked, request_id=dtype)
            output = result.as_numpy("output")
            assert (output.dtype, output.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(output, array if dtype == "?" else array + array)
            response = result.get_response()
            assert (response["id"], response["model_name"], response["model_version"]) == (dtype, "double", "1")

    await with_client(served.port, call)


async def test_bf16_comes_back_as_fp32(served):
    array = np.array([1.5, -2.25, np.inf], dtype=ml_dtypes.bfloat16)
    output, _ = await infer(served, "double", given("x", array))
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, [3.0, -4.5, np.inf])


async def test_nan_and_infinity_travel_in_binary(served):
    output, _ = await infer(served, "double", given("x", np.array([np.nan, -np.inf], "f4")))
    np.testing.assert_array_equal(output, [np.nan, -np.inf])


async def test_a_large_array_goes_through_the_blob_store_and_back(served):
    array = np.arange(1_500_000, dtype="f4").reshape(1000, 1500).T
    output, _ = await infer(served, "double", given("x", np.ascontiguousarray(array)))
    np.testing.assert_array_equal(output, array * 2)


async def test_the_rows_of_a_batch_are_asked_one_by_one_and_come_back_together(served):
    rows = np.random.default_rng(0).normal(size=(200, 10)).astype("f4")
    output, _ = await infer(served, "softmax", given("rows", rows))
    powers = np.exp(rows)
    np.testing.assert_allclose(output, powers / powers.sum(axis=1, keepdims=True), rtol=1e-6)


async def test_the_worker_batches_the_elements_of_one_call(served):
    sizes, _ = await infer(served, "crowd", given("numbers", np.zeros((20, 10))))
    assert (sizes.dtype, sizes.shape) == (np.int64, (20, 10))
    assert sizes.max() > 1


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
async def test_texts_go_there_and_back(served, binary):
    texts = np.array(["eins", "zwölf", "", 'a "[,]" b'], dtype=object)
    asked = [InferRequestedOutput("output", binary_data=binary)]
    output, _ = await infer(served, "shout", given("texts", texts, binary=binary), outputs=asked)
    assert [one.decode() if binary else one for one in output] == ["EINS", "ZWÖLF", "", 'A "[,]" B']


async def test_a_photograph_goes_as_a_file_or_as_pixels(served):
    cat = photograph("chelsea")
    files = given("image", np.array([as_file(cat, "PNG"), as_file(cat, "JPEG", quality=95)], dtype=object))
    mean = np.asarray(cat).mean(axis=(0, 1))
    output, _ = await infer(served, "mean", files)
    assert output.shape == (2, 3)
    np.testing.assert_allclose(output[0], mean)
    np.testing.assert_allclose(output[1], mean, rtol=0.01)
    output, _ = await infer(served, "mean", given("image", np.asarray(cat)))
    np.testing.assert_allclose(output, mean)
    output, _ = await infer(served, "mean", given("image", np.stack([cat, cat])))
    np.testing.assert_allclose(output, [mean, mean])


async def test_a_picture_comes_back_as_a_file(served):
    cat = photograph("chelsea")
    output, _ = await infer(served, "invert", given("image", np.asarray(cat)[None]))
    picture = Image.open(io.BytesIO(output[0]))
    assert difference(Image.fromarray(255 - np.asarray(cat)), picture) == 0


async def test_bytes_are_any_bytes(served):
    output, _ = await infer(served, "raw", given("data", np.array([b"\x00\xff", b"ab"], dtype=object)))
    assert list(output) == [b"\xff\x00", b"ba"]


async def test_several_inputs_go_by_name_and_keep_their_types(served):
    a, b = np.array([0, 1, np.inf], "f2"), np.array([1, 3, 1], "f2")
    output, _ = await infer(served, "mix", given("a", a), given("b", b), given("weight", np.array([0.25])))
    assert output.dtype == np.float16
    np.testing.assert_array_equal(output, np.array([0.25, 1.5, np.inf], "f2"))
    output, _ = await infer(served, "mix", given("b", b, binary=False), given("a", a))
    np.testing.assert_array_equal(output, (a + b) / 2)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compressed_requests_are_understood(served, algorithm):
    array = np.zeros((300, 300), "f4")
    options = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    output, _ = await infer(served, "double", given("x", array), **options)
    np.testing.assert_array_equal(output, array)


async def test_many_calls_at_once(served):
    def call(client):
        inputs = [given("texts", np.array([f"text {n}"], dtype=object)) for n in range(100)]
        pending = [client.async_infer("shout", [one], request_id=str(n)) for n, one in enumerate(inputs)]
        return [(one.get_response()["id"], one.as_numpy("output")[0]) for one in (p.get_result() for p in pending)]

    answers = await with_client(served.port, call, concurrency=16)
    assert answers == [(str(n), f"TEXT {n}".encode()) for n in range(100)]


async def test_timeout_and_priority_are_taken(served):
    output, _ = await infer(served, "shout", given("texts", ["a"]), timeout=20_000_000, priority=1)
    assert output[0] == b"A"


async def test_errors_say_what_is_wrong(served):
    text, array = given("texts", ["a"]), given("x", np.zeros(2))
    status, message = await error_of(served, "nothing", text)
    assert status == "404"
    assert "no model named 'nothing'; known: crowd, double, invert" in message
    assert await error_of(served, "shout", text, model_version="7") == (
        "404",
        "model 'shout' has no version '7'; its only one is '1'",
    )
    assert await error_of(served, "shout", array) == ("400", "the model takes one input, 'texts'; the request has 'x'")
    status, message = await error_of(served, "shout", given("texts", ["good", "bad"]))
    assert (status, message) == ("500", "element 1: ValueError: I do not like this one")
    status, message = await error_of(served, "mean", given("image", [b"no picture"]))
    assert status == "400"
    assert "not an image" in message
    status, message = await error_of(served, "shout", text, outputs=[InferRequestedOutput("scores")])
    assert (status, message) == ("400", "the model has one output, 'output'; the request asks for 'scores'")
    status, message = await error_of(served, "shout", text, sequence_id=3, sequence_start=True)
    assert (status, message[:26]) == ("400", "there are no sequences her")
    status, message = await error_of(served, "shout", text, parameters={"temperature": 0.5})
    assert (status, message[:40]) == ("400", "the request: unknown parameter 'temperat")
    asked = [InferRequestedOutput("output", binary_data=False)]
    status, message = await error_of(served, "raw", given("data", [b"\xff"]), outputs=asked)
    assert (status, "binary_data_output" in message) == ("400", True)


async def test_what_triton_has_and_is_not_here_is_told_so_that_its_client_can_read_it(served):
    for call in (
        lambda client: client.get_model_config("shout"),
        lambda client: client.get_inference_statistics("shout"),
        lambda client: client.load_model("shout"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            await with_client(served.port, call)
        assert caught.value.status() == "404"
        assert "nothing is served at /v2/" in caught.value.message()


async def test_plain_json_is_enough(served):
    body = {"inputs": [{"name": "input", "shape": [2, 2], "datatype": "INT32", "data": [[1, 2], [3, 4]]}]}
    response = await served.http.post("/v2/models/double/versions/1/infer", content=json.dumps(body))
    assert response.json() == {
        "model_name": "double",
        "model_version": "1",
        "outputs": [{"name": "output", "datatype": "INT32", "shape": [2, 2], "data": [2, 4, 6, 8]}],
    }
