"""The AsyncAPI 3.0 document of the queue door: for producers that put messages on a model's queue themselves. Pure.

Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0; the messages are CloudEvents 1.0 in binary or
structured mode (see envelope.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dumbwaiter.gateway.documents.openapi import Described, prediction_schemas
from dumbwaiter.gateway.documents.schemas import Components, Schema, Signature, input_schema, output_schema
from dumbwaiter.message import (
    KEEP,
    PREDICTION_FAILED,
    PREDICTION_REQUESTED,
    PREDICTION_SUCCEEDED,
    WEBHOOK,
    WEBHOOK_EVENTS,
    Failure,
    Timings,
)
from dumbwaiter.notification import EVENTS

VERSION = "3.0.0"
_TEXT: Schema = {"type": "string"}
_TIME: Schema = {"type": "string", "description": "RFC 3339, or seconds since the Unix epoch"}


def asyncapi(models: Sequence[Signature], gateway: Described) -> dict[str, Any]:
    """The document, as JSON values: a channel and an operation for each model, the replies, and the webhooks."""
    components = Components()
    components.schemas |= prediction_schemas() | _own_schemas()
    messages = {f"request.{model.name}": _request(model, components) for model in models}
    messages |= {f"answer.{model.name}": _answer(model, components) for model in models}
    return {
        "asyncapi": VERSION,
        "id": "urn:dumbwaiter:queues",
        "info": {
            "title": "dumbwaiter queues",
            "version": gateway.version,
            "description": (
                "Put a message on a model's queue; a worker answers to `replyto`, or keeps the answer as a result."
                " All attributes are optional: a bare body is a valid request."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            **{f"model:{model.name}": _channel(model) for model in models},
            "inbox": _inbox(models),
            "webhook": _WEBHOOK_CHANNEL,
        },
        "operations": {
            **{f"predict:{model.name}": _operation(model) for model in models},
            "notify": {
                "action": "send",
                "summary": "A courier tells the webhook of a request what happens to it",
                "channel": {"$ref": "#/channels/webhook"},
                "messages": [{"$ref": "#/channels/webhook/messages/prediction"}],
            },
        },
        "components": {
            "messages": {**messages, "failure": _FAILURE, "prediction": _NOTIFICATION},
            "schemas": components.schemas,
        },
    }


def _channel(model: Signature) -> dict[str, Any]:
    return {
        "address": model.name,
        "title": model.name,
        "description": f"The queue of the model {model.name}.",
        "messages": {"request": {"$ref": f"#/components/messages/request.{model.name}"}},
        "x-dumbwaiter-model": model.outline,
    }


def _operation(model: Signature) -> dict[str, Any]:
    # The document is of the workers, so what callers send is what they receive.
    channel = f"model:{model.name}"
    return {
        "action": "receive",
        "summary": f"Ask {model.name}",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/request"}],
        "reply": {
            "address": {
                "location": "$message.header#/replyto",
                "description": "an inbox, or a URL that a courier posts to; without it the answer is kept as a result",
            },
            "channel": {"$ref": "#/channels/inbox"},
            "messages": [
                {"$ref": f"#/channels/inbox/messages/answer.{model.name}"},
                {"$ref": "#/channels/inbox/messages/failure"},
            ],
        },
    }


def _inbox(models: Sequence[Signature]) -> dict[str, Any]:
    names = [*(f"answer.{model.name}" for model in models), "failure"]
    return {
        "address": None,
        "title": "The caller's inbox",
        "description": "A private address for replies; they come in any order, matched by `correlationid`.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _request(model: Signature, components: Components) -> dict[str, Any]:
    payload = input_schema(model, components)
    kinds = ", ".join(model.content_types) or "JSON only"
    return {
        "name": PREDICTION_REQUESTED,
        "title": f"Ask {model.name}",
        "summary": f"The input as the body. As JSON it has this schema; other bodies: {kinds}.",
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/RequestAttributes"},
        "payload": payload,
        "correlationId": {"location": "$message.header#/correlationid"},
    }


def _answer(model: Signature, components: Components) -> dict[str, Any]:
    return {
        "name": PREDICTION_SUCCEEDED,
        "title": f"The answer of {model.name}",
        "headers": {"$ref": "#/components/schemas/AnswerAttributes"},
        "payload": output_schema(model, components),
        "correlationId": {"location": "$message.header#/correlationid"},
    }


def _own_schemas() -> dict[str, Schema]:
    _, schemas = msgspec.json.schema_components([Failure, Timings], ref_template="#/components/schemas/{name}")
    attributes = {"specversion": {"const": "1.0"}, "id": _TEXT, "source": _TEXT, "subject": _TEXT, "time": _TIME}
    attributes |= {"datacontenttype": _TEXT, "dataref": {"type": "string", "pattern": "^blob:claims/"}}
    attributes |= {"traceparent": _TEXT, "correlationid": _TEXT, "tenant": _TEXT}
    request = {
        "type": {"type": "string", "default": PREDICTION_REQUESTED},
        "replyto": {"type": "string", "description": "an inbox, or a URL"},
        "deadline": _TIME,
        "priority": {"type": "string", "pattern": "^-?[0-9]+$", "default": "0"},
        "idempotencykey": _TEXT,
        KEEP: {"enum": ["true", "false"], "description": "with `replyto`: keep the answer as a result as well"},
        WEBHOOK: {"type": "string", "description": "a URL that a courier tells of the request"},
        WEBHOOK_EVENTS: {"type": "string", "description": f"of what: {','.join(EVENTS)}"},
    }
    answer = {
        "type": {"enum": [PREDICTION_SUCCEEDED, PREDICTION_FAILED]},
        "dataref": {"type": "string", "pattern": "^blob:(claims|result-bodies)/"},
        "timings": {"type": "string", "contentMediaType": "application/json", "contentSchema": schemas["Timings"]},
    }
    return {
        **schemas,
        "RequestAttributes": _attributes("CloudEvents 1.0 attributes; all are optional", {**attributes, **request}),
        "AnswerAttributes": _attributes("CloudEvents 1.0 attributes of an answer", {**attributes, **answer}),
    }


def _attributes(description: str, properties: Schema) -> Schema:
    return {"type": "object", "description": description, "properties": properties, "additionalProperties": _TEXT}


_FAILURE: dict[str, Any] = {
    "name": PREDICTION_FAILED,
    "title": "Why there is no output",
    "contentType": "application/json",
    "headers": {"$ref": "#/components/schemas/AnswerAttributes"},
    "payload": {"$ref": "#/components/schemas/Failure"},
    "correlationId": {"location": "$message.header#/correlationid"},
}

_NOTIFICATION: dict[str, Any] = {
    "name": "prediction",
    "title": "What happens to a request",
    "contentType": "application/json",
    "headers": {
        "type": "object",
        "description": "Standard Webhooks",
        "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
        "properties": {"webhook-id": _TEXT, "webhook-timestamp": _TEXT, "webhook-signature": _TEXT},
    },
    "payload": {"$ref": "#/components/schemas/ToldPrediction"},
}

_WEBHOOK_CHANNEL: dict[str, Any] = {
    "address": None,
    "title": "A webhook",
    "description": f"The URL in the attribute `{WEBHOOK}` of a request, by HTTP POST.",
    "messages": {"prediction": {"$ref": "#/components/messages/prediction"}},
}
