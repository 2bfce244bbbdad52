"""What a courier has in hand, and the renewal of its locks."""

from __future__ import annotations

from collections.abc import Sequence

from dumbwaiter.brokers.contract import Broker
from dumbwaiter.errors import LockLostError
from dumbwaiter.message import Delivery


class Held:
    """A delivery in hand; renewal replaces it. *settled*: its last verb was called, and nothing else is to be done."""

    __slots__ = ("delivery", "settled")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.settled = False

    @property
    def name(self) -> str:
        """For logs: which notification of which request."""
        message = self.delivery.message
        return f"{message.id} (of {message.correlation_id})"


async def renew(held: Sequence[Held], broker: Broker) -> list[Held]:
    """Renew the locks of *held*; returns those whose lock is lost, and are settled with that.

    Raises BrokerUnavailableError.
    """
    if not held:
        return []
    asked = [one.delivery for one in held]
    lost: Sequence[Delivery] = ()
    try:
        renewed = await broker.renew_lock(asked)
    except LockLostError as error:
        lost, renewed = error.deliveries, error.renewed
    gone = {_key(delivery) for delivery in lost}
    kept = [one for one, delivery in zip(held, asked, strict=True) if _key(delivery) not in gone]
    for one, delivery in zip(kept, renewed, strict=True):
        one.delivery = delivery
    return [one for one, delivery in zip(held, asked, strict=True) if _key(delivery) in gone]


def _key(delivery: Delivery) -> tuple[str, str]:
    return delivery.message.id, delivery.lock_token
