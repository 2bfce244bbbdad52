"""From a Python value to a request message, and from an answer back to a value. Pure but for the clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.message import Message, new_id
from dumbwaiter.models.codecs import decode_output, encode_input

if TYPE_CHECKING:
    from dumbwaiter.message import Message as Answer

SOURCE = "/dumbwaiter/client"


def build_request(
    model: str, value: Any, *, content_type: str | None = None, deadline: float | None = None, priority: int = 0
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
    )


def read_answer(answer: Answer) -> Any:
    """The model's output as a Python value. Raises PredictionError when the answer is a failure."""
    raise_for_failure(answer)
    return decode_output(answer.content_type, answer.body)


def deadline_after(timeout: float, deadline: float | None) -> float:
    """*deadline*, or *timeout* seconds from now: when the caller has given up, the model need not run."""
    return time.time() + timeout if deadline is None else deadline
