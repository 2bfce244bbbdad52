"""The OpenAPI document: valid, complete, and true to each model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from described_models import CLASSES, Find, Grey, Label, Measure, Nest, Say, Shout, signature
from openapi_spec_validator import OpenAPIV31SpecValidator

import dumbwaiter.gateway
from dumbwaiter.config import GatewaySettings, OutboundSettings
from dumbwaiter.gateway.app import Gateway
from dumbwaiter.gateway.documents.openapi import Described, openapi
from dumbwaiter.gateway.documents.problems import CODES
from dumbwaiter.gateway.documents.schemas import Signature
from dumbwaiter.gateway.http.problems import STATUS_OF_FAILURE
from dumbwaiter.signing import SigningKey

pytestmark = pytest.mark.anyio

GATEWAY = Described(version="1.2.3")
REST_PAGE = Path(__file__).parents[3] / "docs/rest.md"
GATEWAY_SOURCE = Path(dumbwaiter.gateway.__file__).parent


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


def test_operation_ids_are_unique():
    written = document(signature(Grey), Signature("a.b"), Signature("a-b"), Signature("a_b"))
    ids = [operation["operationId"] for path in written["paths"].values() for operation in operations(path)]
    assert len(ids) == len(set(ids))


def operations(path):
    return [path[method] for method in ("get", "put", "post", "delete") if method in path]


def test_every_code_that_the_reference_page_tells_of_is_in_the_document():
    for line in REST_PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit():
            assert set(re.findall(r"[a-z-]+", cells[1])) <= set(CODES[int(cells[0])])


def test_every_code_that_the_gateway_writes_is_in_the_document():
    written = {(str(status), code) for code, status in STATUS_OF_FAILURE.items()}
    for file in GATEWAY_SOURCE.rglob("*.py"):
        text = re.sub(r"\s+", " ", file.read_text())
        written |= set(re.findall(r'problem\( ?(\d{3}), "([a-z-]+)"', text))
        written |= set(re.findall(r'status=(\d{3}), code="([a-z-]+)"', text))
    assert len(written) > 30
    assert [(status, code) for status, code in sorted(written) if code not in CODES[int(status)]] == []


async def test_the_document_tells_of_every_route_and_of_no_other(broker, store):
    gateway = Gateway(broker, store, GatewaySettings(), signing=SigningKey(b"s" * 32), outbound=OutboundSettings())
    told = {
        (method, path)
        for path, operations in openapi([], GATEWAY)["paths"].items()
        for method in operations
        if not method.startswith("x-")
    }
    served = {
        (method.lower(), route.path)
        for route in gateway._routes
        for method in route.methods - {"HEAD"}
        if not route.path.startswith("/docs") and ":path" not in route.path
    }
    assert told == served
