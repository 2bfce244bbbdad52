"""The AsyncAPI document of the queue door."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from described_models import CLASSES, Nest, Say, Shout, signature

from dumbwaiter.answers import failed
from dumbwaiter.envelope import to_attributes
from dumbwaiter.gateway.documents.asyncapi import asyncapi
from dumbwaiter.gateway.documents.openapi import Described
from dumbwaiter.gateway.documents.schemas import Signature
from dumbwaiter.message import Failure, Message


def document(*models):
    return json.loads(json.dumps(asyncapi(models, Described(version="1.2.3"))))


def validator(written, schema):
    return jsonschema.Draft202012Validator({**schema, "components": written["components"]})


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from references(one)


def found(written, reference):
    value = written
    for step in reference.removeprefix("#/").split("/"):
        value = value[step.replace("~1", "/").replace("~0", "~")]
    return value


def test_every_model_has_a_channel_that_is_its_queue_and_an_operation_with_replies():
    written = document(signature(Shout), Signature("not.yet.seen"))
    assert written["asyncapi"] == "3.0.0"
    assert written["channels"]["model:shout"]["address"] == "shout"
    operation = written["operations"]["predict:shout"]
    assert operation["action"] == "receive"
    assert operation["reply"]["address"]["location"] == "$message.header#/replyto"
    assert written["channels"]["model:not.yet.seen"]["address"] == "not.yet.seen"


def test_all_references_lead_somewhere():
    written = document(*map(signature, CLASSES))
    for reference in set(references(written)):
        assert found(written, reference) is not None


def test_messages_of_an_operation_are_messages_of_its_channel():
    written = document(*map(signature, CLASSES))
    for operation in written["operations"].values():
        for part in (operation, operation.get("reply", operation)):
            channel = part["channel"]["$ref"]
            assert all(message["$ref"].startswith(f"{channel}/messages/") for message in part["messages"])


def test_names_of_components_have_the_form_that_the_specification_asks_for():
    written = document(*map(signature, CLASSES))
    for kind in written["components"].values():
        assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in kind)


def test_payloads_have_the_schemas_of_the_model():
    written = document(signature(Nest), signature(Say))
    request = found(written, written["channels"]["model:nest"]["messages"]["request"]["$ref"])
    validator(written, request["payload"]).validate({"x": 1, "inside": [{"x": 2}]})
    assert not validator(written, request["payload"]).is_valid({"x": "one"})
    answer = written["components"]["messages"]["answer.say"]
    validator(written, answer["payload"]).validate(["a", "b"])


@pytest.mark.parametrize(
    "message",
    [Message(), Message(reply_to="inbox-1", deadline=1e9, priority=-3, tenant="t", extensions={"keep": "true"})],
)
def test_attributes_as_they_are_written_fit_their_schema(message):
    written = document()
    validator(written, {"$ref": "#/components/schemas/RequestAttributes"}).validate(to_attributes(message))


def test_a_failure_as_it_is_written_fits_its_schema():
    written = document()
    answer = failed(Message(), Failure(code="bad-input", message="no"))
    failure = written["components"]["messages"]["failure"]
    validator(written, failure["headers"]).validate(to_attributes(answer))
    validator(written, failure["payload"]).validate(json.loads(answer.body))
