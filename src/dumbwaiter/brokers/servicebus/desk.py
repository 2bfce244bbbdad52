"""Settling and renewing by lock token at an entity's management node: many tokens in one request.

The client settles one message at a time on the link that it came by, where somebody waits for the next ones. The
request for many is documented by Microsoft, and made by the client itself when a link is gone; but it offers no call
for it, so names are used here that it does not promise to keep.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from azure.servicebus.aio import ServiceBusReceiver

from dumbwaiter.brokers.servicebus.api import Api, Channel
from dumbwaiter.brokers.servicebus.errors import NoEntityError, NoLockError, UnaskedError
from dumbwaiter.brokers.servicebus.gathering import Gathering
from dumbwaiter.errors import BrokerError, BrokerUnavailableError

Verb: TypeAlias = Literal["completed", "abandoned", "suspended", "renew"]
_DOING = {"completed": "completing", "abandoned": "handing back", "suspended": "dead-lettering", "renew": "renewing"}
LARGEST = 200
"""Tokens in one request."""


class Order(msgspec.Struct, frozen=True):
    """What to do with the message under *token*: *reason* and *detail* are for ``suspended``, which dead-letters it."""

    verb: Verb
    token: uuid.UUID
    reason: str = ""
    detail: str = ""


Outcome: TypeAlias = "bool | BrokerError"
"""Whether the lock was held, so that it is done; or why nobody knows."""


class Desk:
    """The management node of the entity *name*."""

    def __init__(self, api: Api, name: str) -> None:
        self._api = api
        self._channel: Channel[ServiceBusReceiver] = Channel(api, name, api.receiver)
        self._gathering: Gathering[Order, Outcome] = Gathering(self._do, largest=LARGEST)

    async def do(self, orders: Sequence[Order]) -> list[Outcome]:
        """The outcome of each."""
        return await self._gathering.ask(orders) if orders else []

    async def close(self) -> None:
        """Do what was asked for, and disconnect."""
        await self._gathering.finish()
        await self._gathering.close()
        await self._channel.close()

    async def _do(self, orders: list[Order]) -> list[Outcome]:
        outcomes: list[Outcome] = [False] * len(orders)
        alike: dict[tuple[str, str, str], list[int]] = {}
        for i, order in enumerate(orders):
            alike.setdefault((order.verb, order.reason, order.detail), []).append(i)
        for numbers in alike.values():
            for start in range(0, len(numbers), LARGEST):
                some = numbers[start : start + LARGEST]
                for i, outcome in zip(some, await self._ask([orders[i] for i in some]), strict=True):
                    outcomes[i] = outcome
        return outcomes

    async def _ask(self, orders: list[Order]) -> list[Outcome]:
        """One request; one for each when that is refused, for it does not say which of the locks is lost."""
        went_out = False

        async def request(receiver: ServiceBusReceiver) -> None:
            nonlocal went_out
            went_out = True
            await _request(receiver, orders)

        try:
            await self._channel.use(_DOING[orders[0].verb], request, within=5.0)
        except NoLockError:
            if len(orders) == 1:
                return [False]
            return [(await self._ask([order]))[0] for order in orders]
        except NoEntityError:
            return [False] * len(orders)
        except BrokerError as error:
            kind = BrokerUnavailableError if went_out else UnaskedError
            return [kind(str(error)) for _ in orders]
        return [True] * len(orders)


async def _request(receiver: Any, orders: Sequence[Order]) -> None:
    tokens = [order.token for order in orders]
    if orders[0].verb == "renew":
        await receiver._renew_locks(*tokens, timeout=5.0)  # noqa: SLF001 - see the module text
        return
    details = {"deadletter-reason": orders[0].reason, "deadletter-description": orders[0].detail}
    await receiver._settle_message_via_mgmt_link(  # noqa: SLF001 - as above
        orders[0].verb, tokens, details if orders[0].verb == "suspended" else None
    )
