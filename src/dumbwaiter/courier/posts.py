"""What is posted: the body that a notification stands for, its headers, and the signature that proves who sent it.

Sources: Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
and the HTTP binding of CloudEvents 1.0 in binary mode
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs.results import head_of_result, result_body_nbytes, with_result_body
from dumbwaiter.courier.durable_functions import as_payload, is_raise_event
from dumbwaiter.courier.memory import Memory
from dumbwaiter.envelope import to_attributes
from dumbwaiter.errors import BadInputError, DumbwaiterError
from dumbwaiter.prediction import INLINE_NBYTES, Links, as_told, encode_prediction, finished, links_of
from dumbwaiter.signing import created_at

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.message import Message
    from dumbwaiter.notification import Event, Notification
    from dumbwaiter.signing import SigningKey

USER_AGENT = "dumbwaiter"
MEMORY_NBYTES = 128 * 1024 * 1024
"""So many bytes of bodies, and of what is made of them, are in memory at once; a larger one is there alone."""
COPIES = 3
"""So often is an output in memory that goes out within an object: as it came, as text, and within that object."""
# What may stand in the value of a ce- header: printable ASCII without the space, the quote and the percent sign.
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


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
    """Makes what is posted from results in *store*; *public_url* is put before links. What it has in memory at once is
    bounded: those for which there is no room wait.
    """

    def __init__(self, store: BlobStore, key: SigningKey, *, public_url: str | None) -> None:
        self._store = store
        self._key = key
        self._public_url = public_url
        self._memory = Memory(MEMORY_NBYTES)

    @asynccontextmanager
    async def composed(self, notification: Notification, tenant: str | None) -> AsyncIterator[Post]:
        """What to post for *notification*, the same bytes each time; it must not be kept for longer than this lasts.

        Raises SupersededError when another answer is stored by now, BlobNotFoundError when none is, BlobDamagedError
        for one that nobody can read any more, and BlobError when the store fails.
        """
        # Gateways answer for ids that they gave out. One that somebody on the queue made up has no links.
        known = self._key.read_id(notification.id, tenant) is not None
        links = links_of(notification.id, self._public_url) if known else None
        if notification.prediction is not msgspec.UNSET:
            yield _unfinished(notification.prediction, notification.event, links)
            return
        answer = await head_of_result(self._store, notification.id)
        if notification.answer not in (None, answer.id):
            raise SupersededError(notification.id, str(notification.answer))
        nbytes = await result_body_nbytes(self._store, answer)
        if notification.style == "webhook" and links is not None and nbytes > INLINE_NBYTES:
            yield _as_prediction(notification, answer, links, linked=True)
            return
        is_as_it_is = notification.style == "reply" and not is_raise_event(notification.url)
        async with self._memory.room_for(nbytes if is_as_it_is else COPIES * nbytes):
            if answer.data_ref is not None:
                answer = await with_result_body(self._store, notification.id, answer)
            if notification.style == "reply":
                yield _as_cloud_event(answer, as_json=not is_as_it_is)
            else:
                yield _as_prediction(notification, answer, links)


def signed(post: Post, *, secret: str, id_: str, now: float) -> dict[str, str]:
    """The headers of *post* with its signature by *secret* (``whsec_...``) at *now*, seconds since the Unix epoch."""
    timestamp = str(int(now))
    signature = hmac.new(_raw(secret), f"{id_}.{timestamp}.".encode(), "sha256")
    signature.update(post.body)  # apart, for together they would be a second copy of a large body
    return {
        "user-agent": USER_AGENT,
        **post.headers,
        "webhook-id": id_,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(signature.digest()).decode()}",
    }


def _raw(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def _as_prediction(about: Notification, answer: Message, links: Links | None, *, linked: bool = False) -> Post:
    """As a caller would read it. *linked*: the output is a link, and its bytes are not in *answer*."""
    made_at = about.created_at if links is None else created_at(about.id)
    prediction = finished(answer, id_=about.id, model=about.model, created_at=made_at, links=links, linked=linked)
    return Post(encode_prediction(as_told(prediction, about.event)), {"content-type": "application/json"})


def _unfinished(prediction: msgspec.Raw, event: Event, links: Links | None) -> Post:
    """*prediction*, which a worker made, with the links of those who know them. Raises BadInputError."""
    try:
        members = _decode_members(prediction)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInputError(f"not a prediction: {error}") from None
    members.pop("urls", None)
    members["event"] = msgspec.Raw(msgspec.json.encode(event))
    if links is not None:
        members["urls"] = msgspec.Raw(msgspec.json.encode(links))
    return Post(msgspec.json.encode(members), {"content-type": "application/json"})


def _as_cloud_event(answer: Message, *, as_json: bool) -> Post:
    if (failure := failure_of(answer)) is not None:
        # The detail, often a traceback, is for those who run the model, not for a URL that a caller names.
        told = msgspec.json.encode(msgspec.structs.replace(failure, detail=""))
        answer = msgspec.structs.replace(answer, body=told)
    elif as_json:
        answer = as_payload(answer)
    attributes = to_attributes(answer)
    content_type = attributes.pop("datacontenttype", "application/octet-stream")
    headers = {f"ce-{name}": quote(value, safe=_PLAIN) for name, value in attributes.items()}
    return Post(answer.body, {"content-type": content_type, **headers})
