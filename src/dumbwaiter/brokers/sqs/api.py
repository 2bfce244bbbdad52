"""Requests to SQS. Here its errors become ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import cache
from typing import Any

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiohttp import ClientConnectorError
from aiohttp import ClientError as HttpError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
)
from botocore.loaders import create_loader

from dumbwaiter.brokers.sqs.location import Location
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError, QueueNotFoundError

ANSWER_WITHIN = 10.0
"""Seconds after which a request that has nothing to wait for is given up."""
LARGEST_BATCH = 10
_AT_ONCE = 8
"""Batches of one verb that are under way at the same time."""
_CONNECTIONS = 512  # each lane that is waited for takes one

_NO_QUEUE = ("NonExistentQueue", "QueueDoesNotExist")
_NO_RIGHT = ("AccessDenied", "AccessDeniedException", "KmsAccessDenied", "KMS.AccessDeniedException")
#: What an answer must hold, where anything must: whatever listens at an endpoint may answer 200 and anything.
_ANSWERS = {
    "create_queue": ("QueueUrl", str),
    "get_queue_url": ("QueueUrl", str),
    "get_queue_attributes": ("Attributes", dict),
}
_NO_KEY = ("InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "ExpiredToken")


class RefusedError(BrokerUnavailableError):
    """SQS refuses a request, with a *code*."""

    def __init__(self, message: str, code: str) -> None:
        self.code = code
        super().__init__(message)


class UnaskedError(BrokerUnavailableError):
    """No connection was made, so nothing was done for sure."""


class RightMissingError(RefusedError):
    """These credentials may not do that."""


class Failed(msgspec.Struct, frozen=True):
    """An entry of a batch that was not done: by the fault of whoever asked, or of SQS itself."""

    code: str
    text: str
    is_ours: bool


_UNANSWERED = Failed("", "it did not say what became of it", is_ours=False)


class Api:
    """A client of SQS in *location*. The ways to ask raise BrokerUnavailableError, and QueueNotFoundError."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        """Make ready; nothing is asked yet."""
        config = AioConfig(
            connect_timeout=3,
            read_timeout=30,
            max_pool_connections=_CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": 1},
            user_agent_extra="dumbwaiter",
        )
        session = get_session()
        session.register_component("data_loader", _descriptions())
        creating = session.create_client(
            "sqs", region_name=self.location.region, endpoint_url=self.location.endpoint, config=config
        )
        try:
            self._client = await self._stack.enter_async_context(creating)
        except NoRegionError:
            raise BrokerUnavailableError(
                f"{self.location.shown} names no region; write sqs://eu-central-1, or set AWS_REGION"
            ) from None

    async def close(self) -> None:
        """Break all connections."""
        self._client = None
        await self._stack.aclose()

    @property
    def is_amazon(self) -> bool:
        """Whether this is the service itself, rather than something that answers like it."""
        endpoint = self.location.endpoint
        return endpoint is None or ".amazonaws.com" in endpoint

    async def ask(
        self, verb: str, *, queue: str | None = None, within: float = ANSWER_WITHIN, **parameters: Any
    ) -> Any:
        """The answer to *verb*, named as the client names it; *queue* stands in the error when there is none."""
        client = self._client
        if client is None:
            raise BrokerClosedError
        was_sent = False
        try:
            async with asyncio.timeout(within):
                try:
                    answer = await getattr(client, verb)(**parameters)
                except ConnectionClosedError:
                    # It may have been idle for too long. But a long poll that broke off is a loss of connection.
                    if parameters.get("WaitTimeSeconds"):
                        raise
                    was_sent = True
                    answer = await getattr(client, verb)(**parameters)
        except ClientError as error:
            raise self._of_answer(verb, queue, error) from None
        except NoCredentialsError:
            raise BrokerUnavailableError(
                f"no AWS credentials for {self.location.shown}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "AWS_PROFILE, or give the machine a role"
            ) from None
        except (BotoCoreError, HttpError, TimeoutError, OSError) as error:
            raise self._unreachable(error, within, was_sent=was_sent) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # the client stumbled over the answer
            raise self._strange(verb) from error
        name, kind = _ANSWERS.get(verb, ("ResponseMetadata", dict))
        if not isinstance(answer, dict) or not isinstance(answer.get(name), kind):
            raise self._strange(verb)
        return answer

    def _unreachable(self, error: Exception, within: float, *, was_sent: bool) -> BrokerUnavailableError:
        reason = str(error) or f"no answer within {within:g} s"
        step = "look at the region in the URL" if self.location.endpoint is None else "start it, or look at endpoint="
        kind = UnaskedError if _never_connected(error) and not was_sent else BrokerUnavailableError
        return kind(f"cannot reach {self.location.shown}: {reason}; {step}")

    def _strange(self, verb: str) -> BrokerUnavailableError:
        where = self.location.shown
        return BrokerUnavailableError(f"{where} does not answer {verb} as SQS does; look what listens at its endpoint")

    async def batch(
        self,
        verb: str,
        url: str,
        entries: Sequence[Mapping[str, Any]],
        *,
        queue: str | None = None,
        nbytes_of: Callable[[Mapping[str, Any]], int] = lambda _: 0,
    ) -> list[Failed | None]:
        """Do *verb* with all *entries*, in as many requests as that takes: what became of each.

        When a request fails, all that it holds has failed; an error of one is raised when that is so for all.
        """
        chunks = _chunks([nbytes_of(entry) for entry in entries], self.location.max_message_size)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def do(chunk: range) -> Any:
            numbered = [{**entries[i], "Id": str(i)} for i in chunk]
            async with gate:
                return await self.ask(verb, queue=queue, QueueUrl=url, Entries=numbered)

        answers = await asyncio.gather(*map(do, chunks), return_exceptions=True)
        outcomes: list[Failed | None] = [None] * len(entries)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        for error in errors:
            if not isinstance(error, BrokerError) or len(errors) == len(answers):
                raise worst_of(errors, len(answers))
        for chunk, answer in zip(chunks, answers, strict=True):
            if isinstance(answer, BaseException):
                for i in chunk:
                    outcomes[i] = Failed("", str(answer), is_ours=False)
                continue
            for i, outcome in _outcomes(chunk, answer):
                outcomes[i] = outcome
        return outcomes

    def _of_answer(self, verb: str, queue: str | None, error: ClientError) -> BrokerError:
        said = error.response.get("Error", {})
        code, text = said.get("Code", ""), said.get("Message", "")
        if code.endswith(_NO_QUEUE):
            return QueueNotFoundError(queue or "", where=None if queue else self.location.shown)
        where = self.location.shown
        if code.endswith(_NO_RIGHT):
            right = "".join(word.capitalize() for word in verb.removesuffix("_batch").split("_"))
            return RightMissingError(f"{where} refuses sqs:{right}: {text}; allow it to this role", code)
        if code in _NO_KEY:
            return RefusedError(f"{where} does not take these AWS credentials: {text}", code)
        return RefusedError(f"{where} answered {verb} with {code}: {text}", code)


@cache
def _descriptions() -> Any:
    """The descriptions of services that make a client; reading them takes longer than all the rest."""
    return create_loader()


def _outcomes(chunk: range, answer: Mapping[str, Any]) -> list[tuple[int, Failed | None]]:
    """What became of each entry of *chunk*. One that *answer* does not call done is not done."""
    done = {entry.get("Id") for entry in answer.get("Successful") or ()}
    failed = {entry.get("Id"): entry for entry in answer.get("Failed") or ()}
    outcomes: list[tuple[int, Failed | None]] = []
    for i in chunk:
        said = failed.get(str(i))
        if said is not None:
            is_ours = bool(said.get("SenderFault"))
            outcomes.append((i, Failed(said.get("Code", ""), said.get("Message", ""), is_ours=is_ours)))
        else:
            outcomes.append((i, None if str(i) in done else _UNANSWERED))
    return outcomes


def worst_of(errors: Sequence[BaseException], count: int) -> BaseException:
    """Which of *errors* tells what became of *count* requests: UnaskedError only where none of them may be done."""
    for error in errors:
        if not isinstance(error, UnaskedError):
            return error
    return errors[0] if len(errors) == count else BrokerUnavailableError(str(errors[0]))


def _never_connected(error: Exception) -> bool:
    if isinstance(error, EndpointConnectionError):  # also what breaks off later is called so
        return isinstance(error.kwargs.get("error"), ClientConnectorError)
    return isinstance(error, ConnectTimeoutError)


def raise_unavailable(failed: Sequence[Failed | None]) -> None:
    """Raise BrokerUnavailableError when any entry has failed."""
    for one in failed:
        if one is not None:
            raise BrokerUnavailableError(f"SQS did not take an entry of a batch: {one.code} {one.text}".strip())


def _chunks(sizes: Sequence[int], limit: int) -> list[range]:
    """Neighbours that go into one request: at most LARGEST_BATCH, and together no more than *limit* bytes."""
    chunks: list[range] = []
    start = nbytes = 0
    for i, size in enumerate(sizes):
        if i > start and (i - start == LARGEST_BATCH or nbytes + size > limit):
            chunks.append(range(start, i))
            start, nbytes = i, 0
        nbytes += size
    if len(sizes) > start:
        chunks.append(range(start, len(sizes)))
    return chunks
