"""A line of the log for each request that asks a model: what ``dumbwaiter plan`` takes as a trace."""

from __future__ import annotations

import logging

from dumbwaiter.message import Message

_log = logging.getLogger("dumbwaiter.gateway.requests")


def log_request(message: Message) -> None:
    """*message* is asked for, whether or not it is let in. The size of a body that went to the store is null."""
    nbytes = len(message.body) if message.data_ref is None else None
    _log.info("request", extra={"model": message.subject, "nbytes": nbytes})
