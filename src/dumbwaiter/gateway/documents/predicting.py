"""The operations that make predictions, for one model by name or for any, as OpenAPI describes them. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.gateway.documents.problems import GUARD, references
from dumbwaiter.gateway.documents.routes import DEADLINE, PRIORITY
from dumbwaiter.gateway.documents.schemas import (
    Components,
    Schema,
    Signature,
    example_of,
    input_schema,
    output_schema,
    raw_output_type,
)
from dumbwaiter.message import LONGEST_TENANT
from dumbwaiter.notification import EVENTS

ASKING_PROBLEMS = (*GUARD, 404, 408, 409, 413, 415, 422, 500, 502, 504)
ANY_MODEL = Signature("{model}")
_OPEN_INPUT: Schema = {"description": "what the model takes: see the model's own path"}
_PREDICTION: Schema = {"$ref": "#/components/schemas/Prediction"}

HEADERS = (
    "Prefer",
    "Idempotency-Key",
    "Dumbwaiter-Deadline",
    "Dumbwaiter-Priority",
    "Dumbwaiter-Tenant",
    "traceparent",
)


def predict(model: Signature, components: Components) -> dict[str, Any]:
    """``POST .../predictions`` of *model*, or of ANY_MODEL."""
    return {
        "operationId": "predict" if model is ANY_MODEL else f"predict:{model.name}",
        "tags": ["predictions"],
        "summary": "Ask a model" if model is ANY_MODEL else f"Ask {model.name}",
        "description": (
            "Sends the input to the model's queue and waits for its answer. With `Prefer: respond-async` it does not"
            " wait: 202, and `Location` says where to look. `Accept` chooses between the output as it is and a"
            " prediction object, and with `text/event-stream` for what happens, as server-sent events."
        ),
        "parameters": _parameters(model),
        "requestBody": _body(model, components),
        "responses": _responses(model, components),
    }


def predict_with_key(model: Signature, components: Components) -> dict[str, Any]:
    """``PUT .../predictions/{key}``."""
    operation = predict(model, components)
    key = {"$ref": "#/components/parameters/Key"}
    kept = [one for one in operation["parameters"] if not one["$ref"].endswith("/Idempotency-Key")]
    return {
        **operation,
        "operationId": "predictWithKey",
        "summary": "Ask a model, once",
        "description": (
            "As POST with `Idempotency-Key`: the same key and body give the same answer, however often it is sent;"
            " another body gives 409."
        ),
        "parameters": [*kept, key],
    }


def body_schema(value: Schema) -> Schema:
    """A JSON body whose input is of the schema *value*."""
    return {
        "type": "object",
        "required": ["input"],
        "additionalProperties": False,
        "properties": {"input": value, **_FIELDS},
    }


def _parameters(model: Signature) -> list[dict[str, Any]]:
    names = [*(["Model"] if model is ANY_MODEL else []), *HEADERS]
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _body(model: Signature, components: Components) -> dict[str, Any]:
    known = bool(model.says)
    value = input_schema(model, components) if known else _OPEN_INPUT
    json: dict[str, Any] = {"schema": body_schema(value)}
    if known:
        json["example"] = {"input": _example(value, components)}
    content = {"application/json": json, "multipart/form-data": _form(model, value)}
    # The schema of a raw body is empty on purpose: that is how OpenAPI 3.1 describes bytes.
    content |= {kind: ({"schema": {"type": "string"}} if kind == "text/plain" else {}) for kind in model.content_types}
    return {"required": True, "content": content}


def _form(model: Signature, value: Schema) -> dict[str, Any]:
    """A form of arguments: text as it is, files as files, and what is neither as JSON."""
    fields = value.get("properties") if model.input_kind == "arguments" else None
    if not isinstance(fields, dict):
        return {"schema": {"type": "object", "required": ["input"], "properties": {"input": {}}}}
    schema = {"type": "object", "required": value.get("required", []), "properties": fields}
    encoding = {
        name: {"contentType": field.get("contentMediaType", "application/json")}
        for name, field in fields.items()
        if isinstance(field, dict) and (field.get("type") != "string" or "contentMediaType" in field)
    }
    return {"schema": schema, **({"encoding": encoding} if encoding else {})}


def _responses(model: Signature, components: Components) -> dict[str, Any]:
    schema = _PREDICTION
    if model.says:
        schema = {"allOf": [_PREDICTION, {"properties": {"output": output_schema(model, components)}}]}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if raw := raw_output_type(model):
        content = {raw: {"schema": {"type": "string"}} if raw == "text/plain" else {}, **content}
    elif model.output_kind == "any":
        content |= {"text/plain": {"schema": {"type": "string"}}, "*/*": {}}
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Prediction-Id", "Server-Timing")}
    later = {
        "description": "Accepted, not finished: look at `Location`.",
        "headers": {"Location": {"schema": {"type": "string"}}, "X-Prediction-Id": headers["X-Prediction-Id"]},
        "content": {"application/json": {"schema": _PREDICTION}},
        "links": {
            operation: {"operationId": operation, "parameters": {"id": "$response.body#/id"}}
            for operation in ("getPrediction", "followPrediction", "cancelPrediction", "getOutput")
        },
    }
    content["text/event-stream"] = {}
    answered = {"description": "The answer.", "headers": headers, "content": content}
    return {"200": answered, "202": later, **references(*ASKING_PROBLEMS)}


def _example(value: Schema, components: Components) -> Any:
    try:
        return example_of(value, components)
    except (TypeError, ValueError):
        return None  # the author of the schema wrote bounds that are no numbers


_FIELDS: Schema = {
    "stream": {"type": "boolean", "description": "answer with server-sent events, as for `text/event-stream`"},
    "webhook": {
        "type": "string",
        "pattern": "^https?://",
        "description": "an https: URL that is told of the prediction; an http: one only where this gateway allows it",
    },
    "webhook_events_filter": {
        "type": "array",
        "items": {"enum": list(EVENTS)},
        "description": "which events the webhook is told of, by default `completed`; nothing without a webhook",
    },
    "deadline": {
        "anyOf": [{"type": "string", "pattern": DEADLINE}, {"type": "number", "minimum": 0}],
        "description": "as the header `Dumbwaiter-Deadline`",
    },
    "priority": {**PRIORITY, "description": "as the header `Dumbwaiter-Priority`"},
    "tenant": {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_TENANT,
        "description": "as the header `Dumbwaiter-Tenant`",
    },
}
