"""One HTTP connection: uvicorn's protocol with the limits that it lacks.

uvicorn with httptools waits for ever for slow heads and bodies, reads heads of any size, and closes a connection with
unread data so abruptly that the client may never see the response. Here each connection has one deadline, looked at by
sweep(); heads are counted; connections are capped; a caller who does not read its response is dropped; and a response
sent before the request was read is followed by a half-close and a short while of throwing the rest away.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from dumbwaiter.gateway.http.codings import CODING, fault_of_coding
from dumbwaiter.gateway.http.crowd import Admission, Wait, admit, is_about_health, too_many, wait_of
from dumbwaiter.gateway.http.flow import MOST_OWED, Flow, tell_gone
from dumbwaiter.gateway.http.gathering import Gathering
from dumbwaiter.gateway.http.problems import Problem, encode
from dumbwaiter.gateway.http.sending import HANG_UPS
from dumbwaiter.gateway.http.upgrades import head_without_upgrade, parser_for

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from dumbwaiter.config import GatewaySettings

SLOWEST = 64 * 1024
"""Each so many bytes of a body that arrive add a second to its deadline, and so do those of a response that leave;
but what went quickly buys no longer silence than a fresh one may keep.
"""
LINGER = 2.0
LINGER_NBYTES = 4 * 1024 * 1024
"""How long, and how much, is still read and thrown away after the last response."""
PIECE = 16 * 1024
"""What a caller sends is parsed in pieces of so many bytes."""
CHUNK_FRAME = 20
"""What a chunk of a body takes beside its data at most, in bytes, when it has no extensions."""


class Phase(enum.Enum):
    """Whose turn it is. Only the caller's turns have a deadline."""

    IDLE = enum.auto()  # nothing of the next request has come
    HEAD = enum.auto()
    BODY = enum.auto()
    OURS = enum.auto()
    CLOSING = enum.auto()


class _FaultError(Exception):
    """Stops the parser; send_400_response() finds out why."""


class Connection(HttpToolsProtocol):
    """Made by uvicorn for each connection. Use make_protocol() for a subclass with its options."""

    options: GatewaySettings

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.phase = Phase.IDLE
        self.phase_since = time.monotonic()
        self.deadline = self.phase_since + self.options.header_timeout
        self._head_nbytes = 0
        self._undelivered = 0
        self._body_nbytes = 0
        self._framing = 0
        self._began = 0
        self._unfed = b""
        self._fault: Problem | None = None
        self._last_word: Problem | None = None
        self._request_is_read = True
        self._owed: deque[RequestResponseCycle] = deque()
        self._read_by: float | None = None
        self._taken = 0
        self._gone_by: float | None = None
        self.is_besides = False
        """Whether it came when there was no room, and may ask for nothing but health."""

    # --- uvicorn's hooks ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._outside = Gathering(transport, close=self.linger, is_over=lambda: self.phase is Phase.CLOSING)
        super().connection_made(self._outside)  # type: ignore[arg-type]
        self.flow = self._flow = Flow(self._outside, self._owed)
        admitted = admit(self.connections, self, self.options.max_connections)
        self.is_besides = admitted is Admission.HEALTH
        if admitted is Admission.NONE:
            self.refuse(too_many(self.options.max_connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self.phase = Phase.CLOSING
        self._unfed = b""
        tell_gone(self._owed)
        if self.cycle is not None:
            self.cycle.body = bytearray()  # this object is part of a cycle, and the garbage collector comes seldom
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.CLOSING:
            self._body_nbytes += len(data)
            if self._body_nbytes > LINGER_NBYTES:
                self.transport.abort()
            return
        if self._last_word is not None:
            self.flow.pause_reading()  # nothing more of this caller is answered
            return
        self._unfed += data
        self._feed()

    def _feed(self) -> None:
        """Parse what was read, until so many responses are owed that the rest can wait."""
        if len(self._unfed) <= PIECE and len(self._owed) < MOST_OWED:
            data, self._unfed = self._unfed, b""
            self._feed_piece(data)
            return
        unfed, start = self._unfed, 0
        while start < len(unfed) and len(self._owed) < MOST_OWED and not self._is_ending():
            self._feed_piece(unfed[start : start + PIECE])
            start += PIECE
        self._unfed = b"" if self._is_ending() else unfed[start:]

    def _feed_piece(self, data: bytes) -> None:
        before, self._began, body_nbytes = self.phase, 0, self._body_nbytes
        if before is Phase.IDLE:
            self._begin_head()
        self._parse(data)
        is_all_head = self._began == (before is Phase.IDLE) and before in (Phase.IDLE, Phase.HEAD)
        if self.phase is Phase.HEAD and is_all_head:
            # httptools hands a header over when it is complete, and keeps what is not yet. Where another head began
            # within *data*, nobody knows how much of it is head.
            self._undelivered += len(data)
            if self._undelivered > self.options.header_limit:
                self.send_400_response("")
        elif self.phase is before is Phase.BODY and not self._began:
            self._framing += len(data) - (self._body_nbytes - body_nbytes)
            if self._framing > self.options.header_limit:
                self._head_nbytes = self._framing
                self.send_400_response("")

    def _parse(self, data: bytes) -> None:
        """Hand *data* to the parser. A wish for another protocol is passed over; uvicorn would swallow what follows."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                method, version = self.parser.get_method(), self.parser.get_http_version()
                data = head_without_upgrade(method, self.url, version, self.headers) + data[upgrade.args[0] :]
                self.parser = parser_for(self)
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            else:
                return

    def _is_ending(self) -> bool:
        return self.phase is Phase.CLOSING or self._last_word is not None

    def send_400_response(self, msg: str) -> None:
        if max(self._head_nbytes, self._undelivered) > self.options.header_limit:
            detail = f"the request's head exceeds {self.options.header_limit} bytes"
            self.refuse(Problem(status=431, code="head-too-large", detail=detail))
        else:
            self.refuse(self._fault or Problem(status=400, code="invalid-http", detail=msg or "this is not HTTP/1.1"))

    # --- httptools' callbacks ---

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._began += 1
        self._head_nbytes = self._undelivered = 0
        self._body_nbytes = self._framing = 0
        self._request_is_read = False
        self._begin_head()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self.parser is not None and len(name) == len(CODING) and name.lower() == CODING:
            self._fault = fault_of_coding(value, self.parser.get_http_version())
            if self._fault is not None:
                raise _FaultError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() != b"CONNECT":
                return
            self._fault = Problem(status=400, code="invalid-http", detail="this gateway is no proxy: no CONNECT")
            raise _FaultError
        if self.is_besides and not is_about_health(self.url):
            self.is_besides = False
            if admit(self.connections, self, self.options.max_connections) is not Admission.FULL:
                self._fault = too_many(self.options.max_connections)
                raise _FaultError
        super().on_headers_complete()  # raises for a target that it cannot read
        cast("dict[str, Any]", self.scope)[HANG_UPS] = []
        self._head_nbytes = self._undelivered = 0
        self.phase = Phase.BODY
        self.deadline = time.monotonic() + self.options.body_timeout
        self._owed.append(self.cycle)

    def on_chunk_header(self) -> None:
        """A chunk begins, whose size and line ends are due to it; what is more are extensions."""
        self._framing -= CHUNK_FRAME

    def on_body(self, body: bytes) -> None:
        self._body_nbytes += len(body)
        self.deadline = _extended(self.deadline, len(body), self.options.body_timeout, time.monotonic())
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._request_is_read = True
        super().on_message_complete()
        if len(self._owed) == 1:
            self.flow.resume_reading()  # a hang-up is seen only where somebody reads
        if self.cycle.response_complete:
            self._rest()
        else:
            self.phase = Phase.OURS

    def on_response_complete(self) -> None:
        # Nobody asks for the rest of the request any more, and the connection may rest for long.
        answered = self._owed.popleft()
        answered.body = bytearray()
        cast("dict[str, Any]", answered.scope).pop(HANG_UPS, None)  # through it the answer could be reached
        self._go_on()
        if not self._owed and self.phase is Phase.OURS:
            self._rest()
        if self._last_word is not None:
            if not self._owed:
                self._say_last_word(self._last_word)
        elif self._unfed:
            self._feed()

    def _go_on(self) -> None:
        """To the next request that was sent ahead; as uvicorn does, but for a timer: the sweep sees idle callers."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    # --- the limits ---

    def is_overdue(self, now: float) -> bool:
        """Whether it is the caller's turn, to send or to read, and the time for it (time.monotonic) is over."""
        if self._gone_by is not None and now > self._gone_by:
            return True
        unread = self._outside.unread()
        if unread:
            return self._reads_too_slowly(unread, now)
        self._read_by = None
        if self.phase is Phase.OURS:
            return False
        # While we do not listen, or owe the response to an earlier request, the caller is not to blame.
        if self.flow.read_paused or len(self._owed) > (self.phase is Phase.BODY):
            self.deadline = max(self.deadline, now + self.options.body_timeout)
        return now > self.deadline

    def _reads_too_slowly(self, unread: int, now: float) -> bool:
        """Whether the caller leaves *unread* bytes of its responses lying for longer than it may."""
        taken = self._outside.written - unread
        if self._read_by is None:
            self._read_by, self._taken = now + self.options.write_timeout, taken
        # Its own next turn begins when it has read all that there is.
        own_turn = {Phase.IDLE: self.options.idle_timeout, Phase.CLOSING: LINGER}
        self.deadline = max(self.deadline, now + own_turn.get(self.phase, self.options.body_timeout))
        self._read_by = _extended(self._read_by, taken - self._taken, self.options.write_timeout, now)
        self._taken = taken
        return now > self._read_by

    def expire(self) -> None:
        """The caller's time is over: say so if a request had begun and it can be heard, and close."""
        is_told = self._gone_by is not None or self._read_by is not None
        if is_told or self.phase in (Phase.IDLE, Phase.CLOSING):
            self.transport.abort()
            return
        part = "head" if self.phase is Phase.HEAD else "body"
        self.refuse(Problem(status=408, code="too-slow", detail=f"the request's {part} did not arrive in time"))

    def refuse(self, problem: Problem) -> None:
        """Answer with *problem* in place of the application, where that is still possible, and close."""
        if self.transport.is_closing() or self.phase is Phase.CLOSING:
            return
        if self._last_word is not None:
            return
        self._last_word = problem
        self._unfed = b""
        # Responses go out in order: what was asked before the request that is refused is answered first.
        if self.phase is Phase.BODY and len(self._owed) > 1:
            self.pipeline.popleft()
            tell_gone([self._owed.pop()])
            self.phase = Phase.OURS
        if self.phase is not Phase.BODY and self._owed:
            self.phase = Phase.OURS
            self.flow.pause_reading()
        else:
            self._say_last_word(problem)

    def _say_last_word(self, problem: Problem) -> None:
        """Nothing else is owed: refuse the request that has come in part, unless its response has begun, and close."""
        is_begun = self.phase is Phase.BODY and (not self._owed or self._owed[0].response_started)
        if not is_begun:
            headers, body = encode(problem, close=True)
            lines = [name + b": " + value + b"\r\n" for name, value in headers]
            self.transport.write(b"".join([STATUS_LINE[problem.status], *lines, b"\r\n", body]))
        tell_gone(self._owed)
        self._request_is_read = False
        self.transport.close()

    def linger(self, transport: asyncio.Transport) -> None:
        """Close *transport*; when the request was not read to its end, so that the caller can still read the response.

        Closing a socket with unread data resets it, and a reset throws away what the caller has not read yet.
        """
        must_linger = not self._request_is_read and self.phase is not Phase.CLOSING
        self.phase = Phase.CLOSING
        self.deadline = time.monotonic() + LINGER
        if not must_linger:
            transport.close()
            return
        self._body_nbytes = 0
        if transport.can_write_eof():
            transport.write_eof()
        # TLS knows no half-close. There the caller is told by "connection: close", and has as long to see it.
        self._flow.resume_reading(whatever_is_owed=True)

    def asks_for_nothing(self) -> bool:
        """Whether the caller is neither owed anything nor has asked for something with a whole head."""
        return self.phase in (Phase.IDLE, Phase.HEAD) and not self._owed and not self._outside.unread()

    def is_closing(self) -> bool:
        """Whether nothing more is asked here."""
        return self.phase is Phase.CLOSING

    def leave(self) -> None:
        """Close at once, without a word: others need the place."""
        self.phase = Phase.CLOSING
        self.transport.abort()

    def scope_that_waits(self) -> Any:
        """The scope of the request that is being answered, when that only waits; else None."""
        return self._owed[0].scope if self._owed and wait_of(self._owed[0].scope) is not None else None

    def give_way(self, wait: Wait) -> None:
        """End *wait*, what its request does, and close when that is answered: others need the place."""
        if self._outside.unread():
            self.leave()  # what the caller does not read would stand before the end
            return
        self._owed[0].keep_alive = False
        self._gone_by = time.monotonic() + LINGER
        wait.give_way.set_result(None)

    def _begin_head(self) -> None:
        if self.phase is not Phase.HEAD:
            self.phase = Phase.HEAD
            self.phase_since = time.monotonic()
            self.deadline = self.phase_since + self.options.header_timeout

    def _rest(self) -> None:
        self.phase = Phase.IDLE
        self.phase_since = time.monotonic()
        self.deadline = self.phase_since + self.options.idle_timeout

    def _count_head(self, nbytes: int) -> None:
        self._head_nbytes += nbytes
        if self._head_nbytes > self.options.header_limit:
            raise _FaultError


def make_protocol(options: GatewaySettings) -> type[Connection]:
    """The protocol class to give to uvicorn as ``http=``."""
    return type("GatewayConnection", (Connection,), {"options": options})


def _extended(deadline: float, nbytes: int, timeout: float, now: float) -> float:
    """*deadline* after *nbytes* more at *now*; no later than that of a caller who begins now, unless it was before."""
    return max(deadline, min(deadline + nbytes / SLOWEST, now + timeout))
