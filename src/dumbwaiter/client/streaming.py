"""Which outputs of a stream are new to its reader, and which its events did not tell of. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.events import is_next_event
from dumbwaiter.client.door import Event
from dumbwaiter.content_types import JSON, parse_content_type
from dumbwaiter.errors import BlobError

if TYPE_CHECKING:
    from dumbwaiter.message import Message

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


class Outputs:
    """The outputs of one stream, in their order and each once."""

    def __init__(self) -> None:
        self._count = 0
        self._place = 0
        self._last = ""
        self._is_whole = True
        self._content_type: str | None = None

    def take(self, event: Event) -> bool:
        """Whether *event* is an output that is new. An attempt that begins anew tells those before it again.

        Where an event was lost, nobody can tell which output comes next: then it is rest() that tells.
        """
        self._is_whole = is_next_event(event.id, self._last) and (self._is_whole or event.kind == "start")
        self._last = event.id or self._last
        if event.kind == "start":
            self._place = 0
        elif event.kind == "output" and self._is_whole:
            self._place += 1
            if self._place > self._count:
                self._count = self._place
                self._content_type = event.content_type
                return True
        return False

    def rest(self, answer: Message) -> list[Event]:
        """The outputs that only the *answer* tells of: that of a model that is no generator, or those whose events the
        worker could not write in time.

        Raises BlobError for bytes among them, which the answer holds in other words.
        """
        if not self._count:
            return [Event("output", answer.content_type, answer.body)]
        try:
            missing = _decode_list(answer.body)[self._count :]
        except msgspec.DecodeError:
            return []
        kind = parse_content_type(self._content_type)
        if missing and not (kind.is_json or kind.is_text):
            raise BlobError(
                f"{len(missing)} outputs of the stream {answer.correlation_id} did not get into the blob store in time;"
                " its result has them all"
            )
        return [self._as_event(one, is_text=kind.is_text) for one in missing]

    def _as_event(self, one: msgspec.Raw, *, is_text: bool) -> Event:
        if is_text and bytes(one)[:1] == b'"':
            return Event("output", self._content_type, _decode_text(one).encode())
        return Event("output", JSON, bytes(one))
