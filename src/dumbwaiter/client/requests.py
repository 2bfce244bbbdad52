"""From a Python value to a request message, and from an answer back to a value.

Each comes twice: for a thread that may be busy for a while, and for an event loop that may not.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.content_types import parse_content_type
from dumbwaiter.message import Message, new_id
from dumbwaiter.models.codecs import decode_output, encode_input, kind_of

if TYPE_CHECKING:
    from dumbwaiter.message import Message as Answer

SOURCE = "/dumbwaiter/client"
QUICK_NBYTES = 64 * 1024
"""An array of up to so many bytes is decoded sooner than another thread could be asked to."""


def build_request(
    model: str,
    value: Any,
    *,
    content_type: str | None = None,
    deadline: float | None = None,
    priority: int = 0,
    tenant: str | None = None,
    idempotency_key: str | None = None,
) -> Message:
    """The message that asks *model* about *value*.

    *value* is encoded by its type (see models.codecs.encode_input); bytes travel as they are. *content_type* says what
    they hold. *deadline* is in seconds since the Unix epoch.
    """
    encoded_type, body = encode_input(value)
    return Message(
        id=new_id(),
        body=body,
        content_type=content_type or encoded_type,
        source=SOURCE,
        subject=model,
        time=time.time(),
        deadline=deadline,
        priority=priority,
        tenant=tenant,
        idempotency_key=idempotency_key,
    )


async def build_request_aside(model: str, value: Any, **attributes: Any) -> Message:
    """As build_request(). Files are read, and images, arrays and tensors encoded, in another thread."""
    is_slow = isinstance(value, Path) or kind_of(type(value)) in {"image", "array", "tensor"}
    if is_slow:
        return await asyncio.to_thread(build_request, model, value, **attributes)
    return build_request(model, value, **attributes)


def read_answer(answer: Answer) -> Any:
    """The model's output as a Python value. Raises PredictionError when the answer is a failure."""
    raise_for_failure(answer)
    return decode_output(answer.content_type, answer.body)


async def read_answer_aside(answer: Answer) -> Any:
    """As read_answer(). Images and large arrays are decoded in another thread."""
    return await read_output_aside(raise_for_failure(answer).content_type, answer.body)


async def read_output_aside(content_type: str | None, body: bytes) -> Any:
    """One output as a Python value. Images and large arrays are decoded in another thread."""
    kind = parse_content_type(content_type)
    is_slow = kind.is_image or (kind.is_npy and len(body) > QUICK_NBYTES)
    return await asyncio.to_thread(decode_output, content_type, body) if is_slow else decode_output(content_type, body)


def deadline_after(timeout: float, deadline: float | None) -> float:
    """*deadline*, or *timeout* seconds from now: when the caller has given up, the model need not run."""
    return time.time() + timeout if deadline is None else deadline
