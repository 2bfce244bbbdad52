"""Reply URLs that raise an event of an orchestration of Azure Durable Functions, which takes JSON and nothing else.

Source: https://learn.microsoft.com/azure/azure-functions/durable/durable-functions-http-api#raise-event
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from dumbwaiter.message import Message
from dumbwaiter.prediction import output_as_json

_RAISE_EVENT = re.compile(
    r".*/(runtime/webhooks/durabletask|admin/extensions/DurableTaskExtension)/instances/[^/]+/raiseEvent/[^/]+/?",
    re.IGNORECASE,
)


def is_raise_event(url: str) -> bool:
    """Whether whoever posts to *url* raises an event, whose payload is the body."""
    return _RAISE_EVENT.fullmatch(urlsplit(url).path) is not None


def as_payload(answer: Message) -> Message:
    """*answer*, an output, as an orchestration can read it: text as a JSON string, other bytes as a ``data:`` URL."""
    body = output_as_json(answer.content_type, answer.body)
    return msgspec.structs.replace(answer, body=body, content_type="application/json")
