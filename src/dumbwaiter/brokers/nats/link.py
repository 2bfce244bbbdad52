"""The connection to the server, which comes back by itself: questions go out in batches, answers come on one subject.

Every connection is a fresh client of nats-py. Its own reconnecting would send later what was written before: a
settlement that comes a minute late would settle the next holder's copy.

The server answers one client in order. So whatever came behind an answer had been sent after its question was: that
tells since when, at the latest, a delivery lies with us (see Link.mark).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors

from dumbwaiter.brokers.nats.answers import NO_RESPONDERS, Answers, Echo, Question, Several, status_of
from dumbwaiter.brokers.nats.client import CarefulClient
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError, ConfigError
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from dumbwaiter.brokers.nats.address import Address

PATIENCE = 5.0
"""Seconds that an answer may take."""
_CONNECT_PATIENCE = 3.0
_PROBE_PATIENCE = 2
_PART_PATIENCE = 1.0
_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5)
_PING_INTERVAL = 5

T = TypeVar("T")


class Link:
    """One broker's connection. *lost* is called when it breaks, *back* when it stands again, with whether the server is
    the same that it was.
    """

    def __init__(
        self,
        address: Address,
        shown: str,
        *,
        lost: Callable[[BrokerError], object],
        back: Callable[[bool], object],
    ) -> None:
        self.mark = 0.0
        """When the latest question was sent that was answered: whatever comes now was delivered after that."""
        self._address = address
        self._shown = shown
        self._lost, self._back = lost, back
        self._client: Client | None = None
        self._server_id: str | None = None
        self._closed = False
        self._reconnecting: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._inbox = ""
        self._tokens = itertools.count()
        self._waiting: dict[str, tuple[Answers, int]] = {}
        self._subscriptions: dict[str, Callable[[Msg], Awaitable[None]]] = {}
        self._listening: dict[str, Subscription] = {}
        self._last_words = ""

    # --- up and down ---

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailableError, and ConfigError for files of the URL that cannot be read."""
        self._client = await self._connect()

    async def close(self) -> None:
        """Send what is written still, and disconnect. Whoever waits gets BrokerClosedError."""
        self._closed = True
        await end([self._reconnecting, self._probing])
        client, self._client = self._client, None
        self._fail(BrokerClosedError())
        if client is not None:
            await self._part(client)

    @property
    def client(self) -> Client:
        """The client while the connection stands. Raises BrokerUnavailableError and BrokerClosedError."""
        if self._closed:
            raise BrokerClosedError
        if self._client is None or not self._client.is_connected:
            raise BrokerUnavailableError(f"{self._shown} is not connected{self._said()}; it is tried again and again")
        return self._client

    @property
    def info(self) -> Mapping[str, Any]:
        """What the server said of itself when the connection was made."""
        return self.client._server_info  # noqa: SLF001 - there is no other way to the server's id and limits

    async def _connect(self) -> Client:
        client = CarefulClient(must_encrypt=self._wants_tls)
        try:
            await self._establish(client)
        except BaseException as error:
            await self._part(client)
            if isinstance(error, ImportError):
                raise ConfigError(f"?creds= in {self._shown} needs nkeys: pip install 'nats-py[nkeys]'") from error
            if isinstance(error, AttributeError):  # the client takes any JSON for a greeting
                error = nats.errors.Error("it does not greet as NATS does; is it one?")
            if not isinstance(error, (OSError, TimeoutError, nats.errors.Error)):
                raise
            # Of several servers the client says only that none was left.
            is_vague = isinstance(error, nats.errors.NoServersError) or not str(error)
            reason = (self._last_words if is_vague else str(error)) or type(error).__name__
            step = _next_step(reason, error)
            raise BrokerUnavailableError(f"cannot connect to {self._shown}: {reason}{step}") from error
        self._server_id = client._server_info.get("server_id")  # noqa: SLF001 - as in info
        self._last_words = ""
        return client

    async def _establish(self, client: Client) -> None:
        scheme = "tls" if self._address.tls else "nats"
        async with asyncio.timeout(_CONNECT_PATIENCE):
            await client.connect(
                [f"{scheme}://{server}" for server in self._address.servers],
                allow_reconnect=False,
                max_reconnect_attempts=1,  # of each server; it means the first connection too
                reconnect_time_wait=0,
                connect_timeout=int(_CONNECT_PATIENCE),
                closed_cb=partial(self._on_closed, client),
                error_cb=self._on_error,
                ping_interval=_PING_INTERVAL,
                max_outstanding_pings=2,
                name="dumbwaiter",
                **self._settings(),
            )
            await self._subscribe_all(client)
        if not client.is_connected:  # it would not say so again
            raise nats.errors.ConnectionClosedError

    def _settings(self) -> dict[str, Any]:
        address = self._address
        settings: dict[str, Any] = {
            "user": address.user,
            "password": address.password,
            "token": address.token,
            "user_credentials": address.creds,
        }
        if self._wants_tls:
            try:
                settings["tls"] = context = ssl.create_default_context(cafile=address.tls_ca)
                if address.tls_cert:
                    context.load_cert_chain(address.tls_cert, address.tls_key)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"cannot read the certificates that {self._shown} names: {error}") from error
        return {name: value for name, value in settings.items() if value is not None}

    @property
    def _wants_tls(self) -> bool:
        return self._address.tls or bool(self._address.tls_ca or self._address.tls_cert)

    async def _subscribe_all(self, client: Client) -> None:
        self._inbox = f"{client.new_inbox()}."
        await self._listen(client, f"{self._inbox}*", self._on_answer)
        for subject, callback in self._subscriptions.items():
            self._listening[subject] = await self._listen(client, subject, callback)

    @staticmethod
    async def _listen(client: Client, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        # Without limits: what is beyond them would be dropped in silence.
        return await client.subscribe(subject, cb=callback, pending_msgs_limit=0, pending_bytes_limit=0)

    async def _on_error(self, error: Exception) -> None:
        self._last_words = str(error)

    async def _on_closed(self, client: Client) -> None:
        self._break(client)

    async def _probe(self, client: Client) -> None:
        """An answer did not come. If the server says nothing at all it is stopped, or the network cut: try anew.

        The client would notice in time too, but then wait until everything is written that nobody reads.
        """
        with contextlib.suppress(OSError, nats.errors.Error):
            await client.flush(timeout=_PROBE_PATIENCE)
            return
        self._last_words = "it is silent"
        self._break(client)
        await self._part(client)

    @staticmethod
    async def _part(client: Client) -> None:
        """Close *client*, which may wait for a peer that reads nothing, and asserts where it never was connected."""
        with contextlib.suppress(OSError, TimeoutError, AssertionError, nats.errors.Error):
            async with asyncio.timeout(_PART_PATIENCE):
                await client.close()

    def _break(self, client: Client) -> None:
        if self._closed or client is not self._client:
            return
        self._client = None
        error = BrokerUnavailableError(f"the connection to {self._shown} was lost{self._said()}")
        self._fail(error)
        self._lost(error)
        self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        before = self._server_id
        for pause in itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1])):
            try:
                self._client = await self._connect()
            except (BrokerUnavailableError, ConfigError):
                await asyncio.sleep(pause)
            else:
                break
        self._back(self._server_id == before)

    def _fail(self, error: BrokerError) -> None:
        waiting, self._waiting = self._waiting, {}
        for answers, _ in waiting.values():
            if not answers.done.done():
                answers.done.set_exception(error)

    def _said(self) -> str:
        return f" ({self._last_words})" if self._last_words else ""

    # --- questions and answers ---

    async def ask(self, questions: Sequence[Question], *, within: float = PATIENCE) -> list[Msg]:
        """The answers to *questions*, one for each, in their order; a status 503 where nobody is there to answer.

        Raises BrokerUnavailableError when the connection is down, breaks, or is silent for *within* seconds.
        """
        answers = Answers(len(questions))
        await self._wait(answers, questions, within)
        return [message for message in answers.received if message is not None]

    async def ask_for_several(
        self, question: Question, is_last: Callable[[list[Msg]], bool], *, within: float = PATIENCE
    ) -> list[Msg]:
        """All answers to *question*, until *is_last* says of those that came that no more will."""
        answers = Several(is_last)
        await self._wait(answers, [question], within)
        return answers.messages

    async def ask_elsewhere(
        self, question: Question, reply: str, answers: Answers, *, within: float = PATIENCE
    ) -> None:
        """Have *question* answered at the subject *reply*; whoever listens there puts what comes into *answers*.

        A delivery shows the subject that its message was sent to, so that only its subscription tells whose it is.
        """
        await self._wait(answers, [question], within, reply=reply)

    async def tell(self, questions: Sequence[Question]) -> set[int]:
        """Publish *questions*, to which nobody answers; return those that nobody was there to hear.

        The server says so at once, before it answers the question that we put to ourselves behind them.
        """
        answers = Echo(len(questions))
        await self._wait(answers, [*questions, (None, b"", None)], PATIENCE)
        return answers.unheard

    async def json(self, subject: str, request: object = None, *, within: float = PATIENCE) -> dict[str, Any]:
        """The answer of JetStream's own interface to *request* at *subject*, behind its prefix."""
        (answer,) = await self.ask([self.api(subject, request)], within=within)
        return self.read(answer)

    def api(self, subject: str, request: object = None) -> Question:
        """*request* to JetStream's own interface."""
        domain = self._address.domain
        prefix = "$JS.API" if domain is None else f"$JS.{domain}.API"
        return f"{prefix}.{subject}", b"" if request is None else json.dumps(request).encode(), None

    def read(self, answer: Msg) -> dict[str, Any]:
        """What JetStream answered. Raises BrokerUnavailableError when nobody did."""
        if status_of(answer) == NO_RESPONDERS:
            raise BrokerUnavailableError(
                f"JetStream does not answer at {self._shown}: start the server with -js, or wait for its leader"
            )
        content: dict[str, Any] = json.loads(answer.data)
        return content

    async def subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> None:
        """Have *callback* called with what comes to *subject*, also on later connections, until unsubscribe()."""
        self._subscriptions[subject] = callback
        self._listening[subject] = await self._guarded(self._listen(self.client, subject, callback))

    async def listen(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Have *callback* called with what comes to *subject* on this connection."""
        return await self._guarded(self._listen(self.client, subject, callback))

    async def forget(self, subject: str) -> None:
        """End a subscription; return once the server knows. What is down cannot be told, and need not be."""
        self._subscriptions.pop(subject, None)
        subscription = self._listening.pop(subject, None)
        if subscription is not None:
            await self.drain(subscription)

    def new_inbox(self) -> str:
        """A subject that nobody else uses."""
        return self.client.new_inbox()

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Write a message. It is not confirmed."""
        await self._guarded(self.client.publish(subject, payload, reply=reply))

    async def _wait(
        self,
        answers: Answers,
        questions: Sequence[Question],
        within: float,
        *,
        reply: str | None = None,
    ) -> None:
        client = self.client
        tokens: list[str] = []
        try:
            for place, (subject, payload, headers) in enumerate(questions):
                token = f"{next(self._tokens):x}"
                tokens.append(token)
                self._waiting[token] = (answers, place)
                own = f"{self._inbox}{token}" if reply is None else reply
                await client.publish(
                    own if subject is None else subject, payload, reply="" if subject is None else own, headers=headers
                )
            async with asyncio.timeout(within):
                await answers.done
        except TimeoutError:
            if self._probing is None or self._probing.done():
                self._probing = asyncio.create_task(self._probe(client))
            raise BrokerUnavailableError(
                f"{self._shown} did not answer within {within:g} s{self._said()}; it is overloaded, its disk is slow, "
                "or this user may not do that"
            ) from None
        except (OSError, nats.errors.Error) as error:
            raise BrokerUnavailableError(f"{self._shown} cannot be written to: {error}") from error
        finally:
            for token in tokens:
                self._waiting.pop(token, None)

    async def _guarded(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except (OSError, nats.errors.Error) as error:
            raise BrokerUnavailableError(f"{self._shown} cannot be written to: {error}") from error

    def heard(self, answers: Answers) -> None:
        """One of *answers* came."""
        self.mark = max(self.mark, answers.sent_at)

    async def _on_answer(self, message: Msg) -> None:
        token = message.subject[len(self._inbox) :]
        waiting = self._waiting.get(token)
        if waiting is None:
            return
        answers, place = waiting
        self.heard(answers)
        if answers.put(place, message):
            self._waiting.pop(token, None)

    async def drain(self, subscription: Subscription) -> None:
        """Listen no more, once everything that the server has sent by now was heard."""
        if self._client is not None and self._client.is_connected:
            with contextlib.suppress(OSError, TimeoutError, nats.errors.Error):
                async with asyncio.timeout(_PART_PATIENCE):
                    await subscription.drain()  # type: ignore[no-untyped-call] # it has no annotation


def _next_step(reason: str, error: BaseException) -> str:
    """What to do after a connection failed for *reason*."""
    if "authorization violation" in reason.lower():
        return "; write user and password, or ?token= or ?creds=, into the URL"
    if isinstance(error, TimeoutError):
        return "; it does not answer: look whether it is stopped, or whether the address is another's"
    return "; start it, or look at its address" if isinstance(error, OSError) or "Errno" in reason else ""
