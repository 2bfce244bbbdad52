"""What is posted: the body that a notification stands for, its headers, and the signature that proves who sent it.

Sources: Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
and the HTTP binding of CloudEvents 1.0 in binary mode
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md).
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs.results import head_of_result, result_body_nbytes, with_result_body
from dumbwaiter.envelope import to_attributes
from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.prediction import INLINE_NBYTES, encode_prediction, finished, links_of
from dumbwaiter.signing import created_at

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.message import Message
    from dumbwaiter.notification import Notification
    from dumbwaiter.signing import SigningKey

USER_AGENT = "dumbwaiter"
_LARGE_NBYTES, _LARGE_AT_ONCE = 4 * 1024 * 1024, 4
# What may stand in the value of a ce- header: printable ASCII without the space, the quote and the percent sign.
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class SupersededError(DumbwaiterError):
    """The answer *answer*, of which a notification was to tell, is no longer the stored one of the request *id*."""

    def __init__(self, id_: str, answer: str) -> None:
        self.id = id_
        self.answer = answer
        super().__init__(f"the request {id_!r} was redriven, and the answer {answer!r} is no longer its own")


class Post(msgspec.Struct, frozen=True):
    """A body and its headers, without the signature."""

    body: bytes
    headers: Mapping[str, str]


class Composer:
    """Makes what is posted from results in *store*; *public_url* is put before links. Only few large bodies at once."""

    def __init__(self, store: BlobStore, key: SigningKey, *, public_url: str | None) -> None:
        self._store = store
        self._key = key
        self._public_url = public_url
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    @asynccontextmanager
    async def composed(self, notification: Notification, tenant: str | None) -> AsyncIterator[Post]:
        """What to post for *notification*, the same bytes each time; it must not be kept for longer than this lasts.

        Raises SupersededError when another answer is stored by now, BlobNotFoundError when none is, BlobDamagedError
        for one that nobody can read any more, and BlobError when the store fails.
        """
        if notification.prediction is not msgspec.UNSET:
            yield Post(bytes(notification.prediction), {"content-type": "application/json"})
            return
        answer = await head_of_result(self._store, notification.id)
        if notification.answer not in (None, answer.id):
            raise SupersededError(notification.id, str(notification.answer))
        nbytes = await result_body_nbytes(self._store, answer)
        # Gateways answer for ids that they gave out. One that somebody on the queue made up has no links.
        known = self._key.read_id(notification.id, tenant) is not None
        if notification.style == "webhook" and known and nbytes > INLINE_NBYTES:
            yield self._as_prediction(notification, answer, known=known, linked=True)
            return
        async with self._large if nbytes > _LARGE_NBYTES else nullcontext():
            if answer.data_ref is not None:
                answer = await with_result_body(self._store, notification.id, answer)
            if notification.style == "reply":
                yield _as_cloud_event(answer)
            else:
                yield self._as_prediction(notification, answer, known=known)

    def _as_prediction(self, about: Notification, answer: Message, *, known: bool, linked: bool = False) -> Post:
        """As a caller would read it. *linked*: the output is a link, and its bytes are not in *answer*."""
        links = links_of(about.id, self._public_url) if known else None
        made_at = created_at(about.id) if known else about.created_at
        prediction = finished(answer, id_=about.id, model=about.model, created_at=made_at, links=links)
        if linked and links is not None and prediction.output is not msgspec.UNSET:
            prediction = msgspec.structs.replace(prediction, output=msgspec.Raw(msgspec.json.encode(links.output)))
        return Post(encode_prediction(prediction), {"content-type": "application/json"})


def signed(post: Post, *, secret: str, id_: str, now: float) -> dict[str, str]:
    """The headers of *post* with its signature by *secret* (``whsec_...``) at *now*, seconds since the Unix epoch."""
    timestamp = str(int(now))
    signature = hmac.digest(_raw(secret), f"{id_}.{timestamp}.".encode() + post.body, "sha256")
    return {
        "user-agent": USER_AGENT,
        **post.headers,
        "webhook-id": id_,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def _raw(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def _as_cloud_event(answer: Message) -> Post:
    if (failure := failure_of(answer)) is not None:
        # The detail, often a traceback, is for those who run the model, not for a URL that a caller names.
        told = msgspec.json.encode(msgspec.structs.replace(failure, detail=""))
        answer = msgspec.structs.replace(answer, body=told)
    attributes = to_attributes(answer)
    content_type = attributes.pop("datacontenttype", "application/octet-stream")
    headers = {f"ce-{name}": quote(value, safe=_PLAIN) for name, value in attributes.items()}
    return Post(answer.body, {"content-type": content_type, **headers})
