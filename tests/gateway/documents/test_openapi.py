"""The OpenAPI document: valid, complete, and true to each model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from described_models import CLASSES, Find, Grey, Label, Measure, Nest, Say, Shout, signature
from gateway_running import gateway
from openapi_spec_validator import OpenAPIV31SpecValidator

import dumbwaiter.gateway
from dumbwaiter.config import GatewaySettings, OutboundSettings
from dumbwaiter.errors import PredictionError
from dumbwaiter.gateway.app import Gateway
from dumbwaiter.gateway.documents.openapi import Described, openapi
from dumbwaiter.gateway.documents.problems import CODES
from dumbwaiter.gateway.documents.schemas import Signature
from dumbwaiter.gateway.http import problem_codes
from dumbwaiter.gateway.http.problems import problem_of
from dumbwaiter.message import LONGEST_TENANT, Failure
from dumbwaiter.signing import SigningKey

pytestmark = pytest.mark.anyio

GATEWAY = Described(version="1.2.3")
REST_PAGE = Path(__file__).parents[3] / "docs/rest.md"
FAILURES_PAGE = REST_PAGE.with_name("state-of-a-message.md")
GATEWAY_SOURCE = Path(dumbwaiter.gateway.__file__).parent
WORKER_SOURCE = GATEWAY_SOURCE.with_name("worker")
FILLED = {"model": "m", "version": "1", "key": "k", "id": "i"}


def document(*models, gateway=GATEWAY):
    return json.loads(json.dumps(openapi(models, gateway)))


def post(written, model):
    return written["paths"][f"/v1/models/{model}/predictions"]["post"]


def json_body(written, model):
    return post(written, model)["requestBody"]["content"]["application/json"]


def body_validator(written, model):
    schema = {**json_body(written, model)["schema"], "components": written["components"]}
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("auth", [False, True])
def test_the_document_of_models_of_every_kind_is_valid(auth):
    models = [*map(signature, CLASSES), Signature("not-yet-seen")]
    written = document(*models, gateway=Described(version="1.2.3", public_url="https://api.example.com/ml/", auth=auth))
    assert list(OpenAPIV31SpecValidator(written).iter_errors()) == []
    assert written["servers"] == [{"url": "https://api.example.com/ml"}]


def test_the_document_of_no_model_is_valid():
    assert list(OpenAPIV31SpecValidator(document()).iter_errors()) == []


def test_an_input_that_refers_to_itself_is_described_among_the_components():
    written = document(signature(Nest))
    fine = {"input": {"x": 1, "inside": [{"x": 2}]}}
    body_validator(written, "nest").validate(fine)
    with pytest.raises(jsonschema.ValidationError, match="-2 is less"):
        body_validator(written, "nest").validate({"input": {"x": 1, "inside": [{"x": -2}]}})


def test_types_of_the_same_name_in_two_places_are_told_apart():
    written = document(signature(Measure), signature(Nest))
    names = [name for name in written["components"]["schemas"] if "." in name]
    assert any(name.startswith("measure.") for name in names)
    body_validator(written, "measure").validate({"input": {"one": {"metres": 1.8}, "other": {"metres": 1.7}}})
    with pytest.raises(jsonschema.ValidationError):
        body_validator(written, "measure").validate({"input": {"one": {"metres": "tall"}, "other": {"metres": 1.7}}})


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls.__name__ != "Anything"])
def test_each_model_has_an_example_that_its_own_schema_takes(cls):
    model = signature(cls)
    written = document(model)
    body_validator(written, model.name).validate(json_body(written, model.name)["example"])


def test_arguments_are_described_by_name_also_as_a_form():
    content = post(document(signature(Find)), "find")["requestBody"]["content"]
    form = content["multipart/form-data"]["schema"]
    assert content["multipart/form-data"]["encoding"] == {
        "image": {"contentType": "image/*"},
        "threshold": {"contentType": "application/json"},
        "kind": {"contentType": "application/json"},
    }
    assert set(form["properties"]) == {"image", "threshold", "kind"}
    assert form["required"] == ["image"]
    assert form["properties"]["kind"]["enum"] == ["fast", "good"]


def test_a_model_takes_the_raw_content_types_that_its_codec_takes():
    content = post(document(signature(Grey)), "grey")["requestBody"]["content"]
    assert {"image/jpeg", "image/png", "image/webp"} < set(content)


def test_outputs_are_described_in_the_forms_in_which_they_come():
    written = document(signature(Grey), signature(Shout), signature(Say), signature(Label))
    content = {name: post(written, name)["responses"]["200"]["content"] for name in ("grey", "shout", "say", "label")}
    for forms in content.values():
        del forms["text/event-stream"]
    assert set(content["grey"]) == {"image/png", "application/json"}
    assert set(content["shout"]) == {"text/plain", "application/json"}
    assert set(content["say"]) == {"application/json"}
    output = content["say"]["application/json"]["schema"]["allOf"][1]["properties"]["output"]
    assert (output["type"], output["items"]) == ("array", {"type": "string"})
    output = content["label"]["application/json"]["schema"]["allOf"][1]["properties"]["output"]
    assert output == {"type": "object", "additionalProperties": {"type": "number"}}


def test_a_model_of_which_nothing_is_known_takes_anything():
    written = document(Signature("new"))
    assert body_validator(written, "new").is_valid({"input": ["whatever"]})
    assert "*/*" in post(written, "new")["requestBody"]["content"]


@pytest.mark.parametrize(
    "says", [{"input": 7, "output": []}, {"input": {"schema": {"type": "array", "minItems": "x"}}}]
)
def test_a_card_that_says_nonsense_spoils_nothing_else(says):
    written = document(Signature("odd", says), signature(Shout))
    assert json_body(written, "shout")["example"] == {"input": "a text"}


def test_keys_are_asked_for_only_where_they_are_wanted():
    assert "security" not in document()
    written = document(gateway=Described(version="1", auth=True))
    assert set(written["components"]["securitySchemes"]) == {"bearer", "key"}
    assert written["security"] == [{"bearer": []}, {"key": []}]
    assert written["paths"]["/v2/health/live"]["get"]["security"] == []


@pytest.mark.parametrize(("name", "fits"), [("a", True), ("a b/c", True), (" a", False), ("a ", False), ("", False)])
def test_a_tenant_in_a_header_may_hold_spaces_but_not_at_its_ends(name, fits):
    pattern = document()["components"]["parameters"]["Dumbwaiter-Tenant"]["schema"]["pattern"]
    assert bool(re.search(pattern, name)) is fits
    assert re.search(pattern, "a" * LONGEST_TENANT)
    assert not re.search(pattern, "a" * (LONGEST_TENANT + 1))


def test_operation_ids_are_unique():
    written = document(signature(Grey), Signature("a.b"), Signature("a-b"), Signature("a_b"))
    ids = [operation["operationId"] for path in written["paths"].values() for operation in operations(path)]
    assert len(ids) == len(set(ids))


def operations(path):
    return [path[method] for method in ("get", "put", "post", "delete") if method in path]


def codes_in(text):
    """Status and code in each row of the Markdown table in *text* whose first cell is a status."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit():
            yield from ((int(cells[0]), code) for code in re.findall(r"`([a-z-]+)`", cells[1]))


def test_the_reference_page_tells_of_every_code_and_of_no_other():
    assert set(codes_in(REST_PAGE.read_text())) == {(code.status, name) for name, code in problem_codes.CODES.items()}


def test_every_code_that_the_gateway_writes_is_known_with_its_status():
    written = set()
    for file in GATEWAY_SOURCE.rglob("*.py"):
        text = re.sub(r"\s+", " ", file.read_text())
        written |= set(re.findall(r'problem\( ?(\d{3}), "([a-z-]+)"', text))
        written |= set(re.findall(r'status=(\d{3}), code="([a-z-]+)"', text))
    assert len(written) > 30
    assert [(status, code) for status, code in sorted(written) if code not in CODES[int(status)]] == []


def test_every_code_that_a_worker_writes_is_known_and_told_with_its_status():
    """Those of a worker's own, as the page on failures tells of them, and as callers get them."""
    written = set()
    for file in WORKER_SOURCE.rglob("*.py"):
        text = re.sub(r"\s+", " ", file.read_text())
        written |= set(re.findall(r'(?:Failure|CauseOfDeath)\( ?code="([a-z-]+)"', text))
        written |= set(re.findall(r'FaultKind\.[A-Z]+, "([a-z-]+)"', text))
        written |= set(re.findall(r'(?:OUT_OF_MEMORY|DEVICE_ERROR) = "([a-z-]+)"', text))
    assert written == {name for name, code in problem_codes.CODES.items() if code.of_worker}
    page = FAILURES_PAGE.read_text()
    for name in written:
        told = problem_of(PredictionError(Failure(code=name, message="why")))
        assert (told.status, told.retry_after) == (problem_codes.CODES[name].status, 1 if told.status == 503 else None)
        assert re.search(rf"^\| `{name}` \|.*\| {told.status} \|$", page, re.MULTILINE), name


@pytest.mark.parametrize("code", ["my-own", "overloaded", "no-api-key"])
def test_a_code_of_the_models_own_is_500_whatever_it_is_called(code):
    told = problem_of(PredictionError(Failure(code=code, message="why")))
    assert (told.status, told.code, told.retry_after) == (500, code, None)


async def test_errors_are_documented_in_the_form_in_which_they_are_sent(broker, store):
    async with gateway(broker, store) as running:
        for path, operations in openapi([], GATEWAY)["paths"].items():
            for method in operations:
                response = await running.http.request(
                    method, path.format_map(FILLED), headers={"host": "foreign.example"}
                )
                if response.status_code == 421:
                    form = "Error" if response.headers["content-type"] == "application/json" else "Problem"
                    told = operations[method]["responses"]["421"]["$ref"]
                    assert told.endswith(f"/{form}421"), (method, path)


async def test_the_document_tells_of_every_route_and_of_no_other(broker, store):
    served_by = Gateway(broker, store, GatewaySettings(), signing=SigningKey(b"s" * 32), outbound=OutboundSettings())
    told = {
        (method, path)
        for path, operations in openapi([], GATEWAY)["paths"].items()
        for method in operations
        if not method.startswith("x-")
    }
    served = {
        (method.lower(), route.path)
        for route in served_by._routes
        for method in route.methods - {"HEAD"}
        if not route.path.startswith("/docs") and ":path" not in route.path
    }
    assert told == served
