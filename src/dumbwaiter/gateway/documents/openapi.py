"""The OpenAPI 3.1 document of a gateway: every route, and each model's own path with its true schemas. Pure.

Source: https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dumbwaiter.gateway.documents.predicting import ANY_MODEL, predict, predict_with_key
from dumbwaiter.gateway.documents.problems import ERROR, PROBLEM, responses
from dumbwaiter.gateway.documents.routes import ROUTES, TAGS, parameters
from dumbwaiter.gateway.documents.schemas import Components, Schema, Signature
from dumbwaiter.gateway.documents.uploading import UPLOADS
from dumbwaiter.prediction import Prediction, ToldPrediction

VERSION = "3.1.1"


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway that a document is about: its *version*, the URL that callers know it by, and whether it wants
    an API key.
    """

    version: str
    public_url: str | None = None
    auth: bool = False


def openapi(models: Sequence[Signature], gateway: Described) -> dict[str, Any]:
    """The document, as JSON values. A model that says nothing of itself gets open schemas."""
    components = Components()
    components.schemas |= prediction_schemas()
    components.schemas |= {"ProblemDetails": dict(PROBLEM), "Error": dict(ERROR), "Model": _MODEL}
    paths = _generic(components) | {
        f"/v1/models/{model.name}/predictions": {
            "x-dumbwaiter-model": model.outline,
            "post": predict(model, components),
        }
        for model in models
    }
    document: dict[str, Any] = {
        "openapi": VERSION,
        "info": {
            "title": "dumbwaiter",
            "version": gateway.version,
            "description": "Models behind queues. Ask one and wait, or ask and come back.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": (gateway.public_url or "/").rstrip("/") or "/"}],
        "tags": list(TAGS),
        "paths": paths,
        "webhooks": _WEBHOOKS,
        "components": {
            "schemas": components.schemas,
            "responses": responses(),
            "parameters": parameters([model.name for model in models]),
            "headers": _HEADERS,
        },
    }
    return _with_keys(document) if gateway.auth else document


def prediction_schemas() -> dict[str, Schema]:
    """The prediction object and its parts, as the code that writes them declares them."""
    told = [Prediction, ToldPrediction]
    _, schemas = msgspec.json.schema_components(told, ref_template="#/components/schemas/{name}")
    return {name: _without_null(schema) for name, schema in schemas.items()}


def _generic(components: Components) -> dict[str, Any]:
    paths: dict[str, Any] = {"/v1/models/{model}/predictions": {"post": predict(ANY_MODEL, components)}}
    for route in (*ROUTES, *UPLOADS):
        paths.setdefault(route.path, {})[route.method] = route.operation()
    paths["/v1/models/{model}/predictions/{key}"]["put"] = predict_with_key(ANY_MODEL, components)
    return paths


def _without_null(schema: Schema) -> Schema:
    """*schema* without the nulls that are never written: members that are None are left out."""
    properties = {}
    for name, member in schema.get("properties", {}).items():
        kinds = [one for one in member.get("anyOf", []) if one != {"type": "null"}]
        plain = kinds[0] if len(kinds) == 1 else {**member, **({"anyOf": kinds} if kinds else {})}
        properties[name] = {key: value for key, value in plain.items() if key != "default" or value is not None}
    return {**schema, "properties": properties}


def _with_keys(document: dict[str, Any]) -> dict[str, Any]:
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "an API key: `dw_ID_SECRET`"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{"bearer": []}, {"key": []}]
    for route in (*ROUTES, *UPLOADS):
        if route.open_to_all:
            document["paths"][route.path][route.method]["security"] = []
    return document


_MODEL: Schema = {
    "type": "object",
    "required": ["name", "workers"],
    "properties": {
        "name": {"type": "string"},
        "workers": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["worker", "state"],
                "properties": {
                    "worker": {"type": "string"},
                    "state": {"enum": ["loading", "ready", "failing", "draining"]},
                    "reason": {"type": "string"},
                    "announced_at": {"type": "number", "description": "seconds since the Unix epoch"},
                    "signature": {"type": "object", "description": "what the model takes and gives"},
                },
            },
        },
    },
}

_HEADERS: dict[str, Any] = {
    "X-Prediction-Id": {"description": "the prediction's id", "schema": {"type": "string"}},
    "Server-Timing": {"description": "where the time went, in milliseconds (W3C)", "schema": {"type": "string"}},
}

_SIGNED = [
    {"name": "webhook-id", "in": "header", "required": True, "schema": {"type": "string"}},
    {"name": "webhook-timestamp", "in": "header", "required": True, "schema": {"type": "string"}},
    {
        "name": "webhook-signature",
        "in": "header",
        "required": True,
        "description": "Standard Webhooks, `v1,...`; the secret is at `/v1/webhooks/default/secret`",
        "schema": {"type": "string"},
    },
]
_HEARD = {
    "2XX": {"description": "Heard."},
    "410": {"description": "Never tell me again."},
    "default": {"description": "It is told again later, about 10 times over 2 hours."},
}
_WEBHOOKS: dict[str, Any] = {
    "prediction": {
        "post": {
            "summary": "A prediction began, has new output or logs, or is completed",
            "description": "Of what runs, `output` and `logs` are those since the last post of that `event`.",
            "parameters": _SIGNED,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ToldPrediction"}}},
            },
            "responses": _HEARD,
        }
    },
    "reply": {
        "post": {
            "summary": "The answer to a message whose reply address is a URL",
            "description": "A CloudEvent in binary mode: attributes in `ce-` headers, the output as the body.",
            "parameters": [
                *_SIGNED,
                *(
                    {"name": f"ce-{name}", "in": "header", "required": required, "schema": {"type": "string"}}
                    for name, required in (("id", True), ("type", True), ("source", True), ("correlationid", False))
                ),
            ],
            "requestBody": {"required": True, "content": {"*/*": {}}},
            "responses": _HEARD,
        }
    },
}
