"""The gateway's routes of uploads as OpenAPI describes them. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dumbwaiter.gateway.documents.problems import GUARD
from dumbwaiter.gateway.documents.routes import Operation

_TEXT: Mapping[str, Any] = {"type": "string"}
_UPLOAD: Mapping[str, Any] = {
    "type": "object",
    "required": ["id", "url", "method", "headers", "expires_at", "limit", "input"],
    "properties": {
        "id": _TEXT,
        "url": {**_TEXT, "description": "of the store itself where it can sign one, else a path of this gateway"},
        "method": {"const": "PUT"},
        "headers": {"type": "object", "additionalProperties": _TEXT, "description": "to send with the bytes"},
        "expires_at": {**_TEXT, "format": "date-time", "description": "until when the bytes may come"},
        "limit": {"type": "integer", "description": "the most bytes that a prediction takes"},
        "input": {
            "type": "object",
            "description": "what a prediction sends as its input; `content_type` may stand beside it",
            "required": ["$upload"],
            "properties": {"$upload": _TEXT, "content_type": _TEXT},
        },
    },
}

UPLOADS: Sequence[Operation] = (
    Operation(
        method="post",
        path="/v1/uploads",
        id="createUpload",
        tag="predictions",
        summary="Where to put a large input",
        description="The bytes go to `url`, which may be the blob store's own, so that they need not pass the gateway.",
        answers={"201": {"description": "How to put it.", "content": {"application/json": {"schema": _UPLOAD}}}},
        problems=GUARD,
    ),
    Operation(
        method="put",
        path="/v1/uploads/{id}",
        id="putUpload",
        tag="predictions",
        summary="Put a large input, where the blob store has no URL of its own for it",
        parameters=("UploadId",),
        body={"required": True, "content": {"application/octet-stream": {"schema": {}}}},
        answers={"204": {"description": "It is there."}},
        problems=(*GUARD, 404, 408, 413),
    ),
)
