"""Sending to one entity: what is sent at the same time goes in the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusSender

from dumbwaiter.brokers.servicebus.api import Api, Channel
from dumbwaiter.brokers.servicebus.errors import NoEntityError, TooLargeError
from dumbwaiter.brokers.servicebus.gathering import Gathering
from dumbwaiter.errors import BrokerError, BrokerUnavailableError

_LARGEST = 1000
_ERRORS = (BrokerError, NoEntityError, TooLargeError)


class Outlet:
    """A sender to the entity *name*."""

    def __init__(self, api: Api, name: str) -> None:
        self._api = api
        self._channel: Channel[ServiceBusSender] = Channel(api, name, api.sender)
        self._gathering: Gathering[ServiceBusMessage, Exception | None] = Gathering(self._send, largest=_LARGEST)

    async def send(self, messages: Sequence[ServiceBusMessage]) -> None:
        """Return when the service has all of *messages*. Raises as translated() says; some may be sent then."""
        for error in await self._gathering.ask(messages):
            if error is not None:
                raise error

    async def reach(self) -> None:
        """Return if the service lets us send there."""
        await self._channel.use("sending", _touch)

    async def close(self) -> None:
        """Send what is under way, and disconnect."""
        await self._gathering.finish()
        await self._gathering.close()
        await self._channel.close()

    async def _send(self, messages: list[ServiceBusMessage]) -> list[Exception | None]:
        errors: list[Exception | None] = []
        while len(errors) < len(messages):
            rest = messages[len(errors) :]
            try:
                count = await self._channel.use("sending", partial(_send_some, rest))
            except TooLargeError as error:  # one that is too large stands alone in its batch, and must not stop others
                errors.append(error)
            except _ERRORS as error:
                errors += [await self._reason(error)] * len(rest)
            else:
                errors += [None] * count
        return errors

    async def _reason(self, error: Exception) -> Exception:
        """Why a send failed: of an entity that is not there the client may only say that the link is closed."""
        if type(error) is BrokerUnavailableError:
            try:
                await self._api.manage("looking for a queue", lambda client: client.get_queue(self._channel.name))
            except NoEntityError as reason:
                return reason
            except BrokerError:
                pass
        return error


async def _send_some(messages: Sequence[ServiceBusMessage], sender: ServiceBusSender) -> int:
    """Send the first of *messages*, as many as go into one batch. Returns how many."""
    batch = await sender.create_message_batch()
    count = 0
    for message in messages:
        try:
            batch.add_message(message)
        except (
            ValueError
        ):  # the batch is full; what does not fit into an empty one goes alone, for the service to judge
            break
        count += 1
    await sender.send_messages(batch if count else messages[0])
    return max(1, count)


async def _touch(sender: ServiceBusSender) -> None:
    await sender.create_message_batch()
