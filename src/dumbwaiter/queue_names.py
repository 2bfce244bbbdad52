"""Which queues there are, also on a product that cannot list them: then by the cards of the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dumbwaiter.blobs.cards import load_cards
from dumbwaiter.message import WEBHOOKS_QUEUE

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker


async def queue_names(broker: Broker, store: BlobStore) -> list[str]:
    """The names of all queues of *broker*, sorted. Raises BrokerUnavailableError, BlobError.

    Where it lists none: the system's own, and those of the models that *store* has cards of, of which a worker was
    ready once.
    """
    if broker.capabilities.lists_queues:
        return await broker.queues()
    maybe = sorted({WEBHOOKS_QUEUE, *(card.name for card in await load_cards(store))})
    return [name for name in maybe if await broker.has_queue(name)]
