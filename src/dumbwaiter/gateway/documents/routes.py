"""The gateway's routes as OpenAPI describes them, beside those that make predictions. Pure data.

Sources: Replicate's and Cog's HTTP APIs for predictions, the Open Inference Protocol
(https://github.com/kserve/open-inference-protocol) for ``/v2``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dumbwaiter.gateway.documents.problems import GUARD, references
from dumbwaiter.gateway.protocol_paths import told_as_error
from dumbwaiter.message import GREATEST_PRIORITY, LEAST_PRIORITY, LONGEST_TENANT

PRIORITY = {"type": "integer", "minimum": LEAST_PRIORITY, "maximum": GREATEST_PRIORITY}
DEADLINE = "^([0-9]{10}|2[0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)$"
"""The usual ways to write one; more are taken."""
TENANT = f"^[!-~]([ -~]{{0,{LONGEST_TENANT - 2}}}[!-~])?$"
"""What fits into a header everywhere; white space around it is no part of it."""

_JSON = "application/json"
_OF_ONE = (*GUARD, 404)
_OF_KEPT = (*_OF_ONE, 410)

TAGS: Sequence[Mapping[str, str]] = (
    {"name": "predictions", "description": "Ask models, and follow, fetch and cancel what was asked."},
    {"name": "models", "description": "Which models there are, and who serves them."},
    {"name": "webhooks", "description": "How to tell that a webhook is genuine."},
    {"name": "inference protocol", "description": "The Open Inference Protocol, version 2."},
    {"name": "health", "description": "For whoever keeps the gateway running."},
    {"name": "documents", "description": "What the gateway says of itself."},
)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. *answers* are its responses but for the problems with the statuses *problems*."""

    method: str
    path: str
    id: str
    tag: str
    summary: str
    answers: Mapping[str, Any]
    description: str = ""
    parameters: Sequence[str] = ()
    body: Mapping[str, Any] | None = None
    problems: Sequence[int] = ()
    open_to_all: bool = False

    def operation(self) -> dict[str, Any]:
        """As an OpenAPI operation object."""
        operation: dict[str, Any] = {"operationId": self.id, "tags": [self.tag], "summary": self.summary}
        if self.description:
            operation["description"] = self.description
        if self.parameters:
            operation["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in self.parameters]
        if self.body is not None:
            operation["requestBody"] = self.body
        form = "Error" if told_as_error(self.path) else "Problem"
        return {**operation, "responses": {**self.answers, **references(*self.problems, form=form)}}


def _ok(description: str, schema: Mapping[str, Any], content_type: str = _JSON) -> dict[str, Any]:
    return {"200": {"description": description, "content": {content_type: {"schema": schema}}}}


def _object(required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {**schema, "required": list(required)} if required else schema


_PREDICTION = {"$ref": "#/components/schemas/Prediction"}
_STRING, _INTEGER, _BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_STRINGS = {"type": "array", "items": _STRING}
_DATATYPES = (
    *("BOOL", "BYTES", "FP16", "FP32", "FP64", "BF16"),
    *("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
)
_TENSOR = _object(
    ("name", "shape", "datatype"),
    name=_STRING,
    shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
    datatype={"enum": list(_DATATYPES)},
    data={"type": "array", "description": "flat or nested, row by row; absent where it follows in binary"},
    parameters={"type": "object"},
)
_TENSOR_TYPE = _object(
    ("name", "datatype", "shape"),
    name=_STRING,
    datatype=_STRING,
    shape={"type": "array", "items": _INTEGER, "description": "-1 where any length goes"},
)
_INFER_REQUEST = _object(
    ("inputs",),
    id=_STRING,
    inputs={"type": "array", "items": _TENSOR, "minItems": 1},
    outputs={"type": "array", "items": _object(("name",), name=_STRING, parameters={"type": "object"})},
    parameters={"type": "object"},
)
_INFER_RESPONSE = _object(
    ("model_name", "outputs"),
    model_name=_STRING,
    model_version=_STRING,
    id=_STRING,
    outputs={"type": "array", "items": _TENSOR},
    parameters={"type": "object"},
)
_ENTRY = _object(
    ("name", "state"),
    name=_STRING,
    version=_STRING,
    state={"enum": ["READY", "LOADING", "UNAVAILABLE"]},
    reason=_STRING,
)
_METADATA = _object(
    ("name", "inputs", "outputs"),
    name=_STRING,
    versions=_STRINGS,
    platform=_STRING,
    inputs={"type": "array", "items": _TENSOR_TYPE},
    outputs={"type": "array", "items": _TENSOR_TYPE},
)

_INDEX = _object(("name", "routes", "models"), name=_STRING, routes=_STRINGS, models=_STRINGS)
_MODELS = _object(("models",), models={"type": "array", "items": {"$ref": "#/components/schemas/Model"}})
_SECRET = _object(("key",), key={"type": "string", "description": "whsec_..., as Standard Webhooks writes it"})
_SERVER = _object(("name", "version", "extensions"), name=_STRING, version=_STRING, extensions=_STRINGS)
_EVENTS = (
    "Server-sent events. `start`; `output`, whose data is one chunk of a generator model; `log`, a line that the model"
    " printed; `completed`, whose data is the prediction. After a broken connection `Last-Event-ID` goes on from there."
)

PREDICTIONS: Sequence[Operation] = (
    Operation(
        method="get",
        path="/v1/models/{model}/predictions/{key}",
        id="getPredictionByKey",
        tag="predictions",
        summary="A kept prediction, by its idempotency key",
        parameters=("Model", "Key"),
        answers=_ok("The prediction as it is now.", _PREDICTION),
        problems=_OF_KEPT,
    ),
    Operation(
        method="get",
        path="/v1/predictions/{id}",
        id="getPrediction",
        tag="predictions",
        summary="A kept prediction",
        description="`queue_position` counts those that are served before it, where the broker knows.",
        parameters=("Id", "Prefer"),
        answers=_ok("The prediction as it is now.", _PREDICTION),
        problems=_OF_KEPT,
    ),
    Operation(
        method="post",
        path="/v1/predictions/{id}/cancel",
        id="cancelPrediction",
        tag="predictions",
        summary="Cancel a prediction",
        description="One that waits never runs; one that runs is interrupted. One that is completed stays as it is.",
        parameters=("Id",),
        answers=_ok("The prediction as it is now.", _PREDICTION),
        problems=_OF_KEPT,
    ),
    Operation(
        method="get",
        path="/v1/predictions/{id}/events",
        id="followPrediction",
        tag="predictions",
        summary="What happens to a prediction, while it happens",
        description=_EVENTS,
        parameters=("Id", "Last-Event-ID"),
        answers={
            "200": {"description": "The events so far, and those to come.", "content": {"text/event-stream": {}}},
            "204": {"description": "`completed` was the last event that was seen: there is no more."},
        },
        problems=_OF_KEPT,
    ),
    Operation(
        method="get",
        path="/v1/predictions/{id}/output",
        id="getOutput",
        tag="predictions",
        summary="The output of a kept prediction, as it is",
        parameters=("Id", "Redirect", "Prefer"),
        answers={
            "200": {"description": "The output, with its own content type.", "content": {"*/*": {}}},
            "307": {"description": "It is in the blob store, at `Location`."},
        },
        problems=(*_OF_KEPT, 409, 422, 500, 502, 504),
    ),
)

MODELS: Sequence[Operation] = (
    Operation(
        method="get",
        path="/v1/models",
        id="listModels",
        tag="models",
        summary="The models, their workers, and what they take",
        answers=_ok("All models.", _MODELS),
        problems=GUARD,
    ),
    Operation(
        method="get",
        path="/v1/webhooks/default/secret",
        id="getWebhookSecret",
        tag="webhooks",
        summary="The secret that signs your webhooks",
        answers=_ok("Yours alone.", _SECRET),
        problems=GUARD,
    ),
)

_INFERENCE: Sequence[Operation] = (
    Operation(
        method="get",
        path="/v2/models/{model}",
        id="v2Model",
        tag="inference protocol",
        summary="What a model takes and gives, as tensors",
        parameters=("Model",),
        answers=_ok("Its metadata.", _METADATA),
        problems=_OF_ONE,
    ),
    Operation(
        method="get",
        path="/v2/models/{model}/ready",
        id="v2ModelReady",
        tag="inference protocol",
        summary="Whether a model can be asked",
        parameters=("Model",),
        answers=_ok("It can.", _object(name=_STRING, ready=_BOOLEAN)),
        problems=_OF_ONE,
    ),
    Operation(
        method="post",
        path="/v2/models/{model}/infer",
        id="v2Infer",
        tag="inference protocol",
        summary="Ask a model with tensors",
        description="As JSON, or with the tensors in binary behind it: `Inference-Header-Content-Length` says where.",
        parameters=("Model", "Inference-Header-Content-Length"),
        body={
            "required": True,
            "content": {_JSON: {"schema": _INFER_REQUEST}, "application/octet-stream": {}},
        },
        answers={
            "200": {
                "description": "The output tensors.",
                "content": {_JSON: {"schema": _INFER_RESPONSE}, "application/octet-stream": {}},
            }
        },
        problems=(*_OF_ONE, 408, 409, 413, 415, 500, 502, 504),
    ),
)

_VERSIONED: Sequence[Operation] = tuple(
    msgspec.structs.replace(
        operation,
        path=operation.path.replace("{model}", "{model}/versions/{version}"),
        id=f"{operation.id}Version",
        summary=f"{operation.summary}; every model has the version 1 alone",
        parameters=(*operation.parameters, "Version"),
    )
    for operation in _INFERENCE
)
INFERENCE: Sequence[Operation] = (
    Operation(
        method="get",
        path="/v2",
        id="v2Server",
        tag="inference protocol",
        summary="The server",
        answers=_ok("Name, version and extensions.", _SERVER),
        problems=GUARD,
    ),
    *_INFERENCE,
    *_VERSIONED,
    Operation(
        method="post",
        path="/v2/repository/index",
        id="v2Index",
        tag="inference protocol",
        summary="The models and their states",
        body={"content": {_JSON: {"schema": _object(ready=_BOOLEAN)}}},
        answers=_ok("All models, or with `ready` those that are.", {"type": "array", "items": _ENTRY}),
        problems=(*GUARD, 408, 413),
    ),
)

HEALTH: Sequence[Operation] = (
    Operation(
        method="get",
        path="/v2/health/live",
        id="live",
        tag="health",
        summary="Whether the process runs",
        answers=_ok("It does.", _object(("live",), live=_BOOLEAN)),
        open_to_all=True,
    ),
    Operation(
        method="get",
        path="/v2/health/ready",
        id="ready",
        tag="health",
        summary="Whether the broker works, writing included",
        answers=_ok("It does.", _object(("ready",), ready=_BOOLEAN)),
        problems=(503,),
        open_to_all=True,
    ),
)

DOCUMENTS: Sequence[Operation] = (
    Operation(
        method="get",
        path="/",
        id="index",
        tag="documents",
        summary="The routes and the names of the models",
        description="A browser (`Accept: text/html`) is sent to the page at `/docs`.",
        answers={
            **_ok("All routes.", _INDEX),
            "303": {"description": "To `/docs`.", "headers": {"Location": {"schema": _STRING}}},
        },
        problems=GUARD,
    ),
    Operation(
        method="get",
        path="/openapi.json",
        id="openapi",
        tag="documents",
        summary="This document",
        answers=_ok("OpenAPI 3.1.", _object(("openapi", "info", "paths"))),
        problems=GUARD,
    ),
    Operation(
        method="get",
        path="/asyncapi.json",
        id="asyncapi",
        tag="documents",
        summary="The queues, for producers that do not come by HTTP",
        answers=_ok("AsyncAPI 3.0.", _object(("asyncapi", "info", "channels"))),
        problems=GUARD,
    ),
)

ROUTES: Sequence[Operation] = (*PREDICTIONS, *MODELS, *INFERENCE, *HEALTH, *DOCUMENTS)
"""All but those that make predictions, which depend on the model."""


def parameters(models: Sequence[str]) -> dict[str, Any]:
    """The parameters that operations refer to, by name, where there are *models*."""
    known = {"examples": list(models)} if models else {}
    return {
        "Model": _parameter("path", "model", "a model's name", pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", **known),
        "Version": _parameter("path", "version", "a version", examples=["1"]),
        "Id": _parameter("path", "id", "a prediction's id"),
        "UploadId": _parameter("path", "id", "an upload's id"),
        "Redirect": _parameter("query", "redirect", "`true`: a large output may be fetched from the blob store itself"),
        "Key": _parameter(
            "path", "key", "an idempotency key of your own", minLength=1, maxLength=255, pattern="^[!-~]+$"
        ),
        **{name: _parameter("header", name, text, **schema) for name, (text, schema) in _HEADERS.items()},
    }


_HEADERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Prefer": (
        "`wait=n` waits at most n seconds; `respond-async` does not wait",
        {"examples": ["respond-async", "wait=30"]},
    ),
    "Idempotency-Key": (
        "the same key and body give the same answer",
        {"minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    ),
    "Dumbwaiter-Deadline": (
        "RFC 3339 time or Unix seconds, after which nobody wants the answer",
        {"pattern": DEADLINE, "examples": ["2130-01-31T12:00:00Z"]},
    ),
    "Dumbwaiter-Priority": ("a larger one is served first", PRIORITY),
    "Dumbwaiter-Tenant": ("who asks, where there are no API keys", {"pattern": TENANT}),
    "Last-Event-ID": ("the last event that was seen", {}),
    "traceparent": ("W3C trace context", {"pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"}),
    "Inference-Header-Content-Length": ("length of the JSON before the binary tensors", {"type": "integer"}),
}


def _parameter(place: str, name: str, description: str, **schema: Any) -> dict[str, Any]:
    parameter = {"name": name, "in": place, "description": description, "schema": {"type": "string", **schema}}
    return {**parameter, "required": True} if place == "path" else parameter
