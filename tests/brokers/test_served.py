"""Every adapter refuses every verb before it is opened; the conformance suite looks at those that were closed."""

from __future__ import annotations

import math
import time

import pytest

from dumbwaiter.brokers import ADAPTERS, open_broker
from dumbwaiter.brokers.contract import Claim
from dumbwaiter.errors import BrokerClosedError
from dumbwaiter.message import Delivery, Message
from dumbwaiter.testing.conformance.looking import error_of, verbs_of

NOWHERE = {
    "memory": "memory:",
    "sqlite": "sqlite:queue.db",
    "redis": "redis://127.0.0.1:1",
    "nats": "nats://127.0.0.1:1",
    "amqp": "amqp://127.0.0.1:1",
    "sqs": "sqs://eu-central-1",
    "kafka": "kafka://127.0.0.1:1",
    "pubsub": "pubsub://a-project",
    "servicebus": "servicebus://name:key@somewhere.servicebus.windows.net",
    "pulsar": "pulsar://127.0.0.1:1",
}
"""An address for each adapter, of servers that are not there."""


def held(queue="a-queue"):
    return Delivery(message=Message(), queue=queue, lock_token="x", locked_until=math.inf, delivery_count=1)


@pytest.fixture(params=NOWHERE)
def broker(request):
    return open_broker(NOWHERE[request.param])


def test_there_is_an_address_for_each_adapter():
    assert {ADAPTERS[scheme] for scheme in NOWHERE} == set(ADAPTERS.values())


@pytest.mark.anyio
async def test_every_verb_of_a_broker_that_was_never_opened_raises(broker):
    claims = []
    if broker.capabilities.killed_holder == "taken_back":
        claims = [Claim("a-queue", "x", time.monotonic() + 60.0)]
    verbs = verbs_of(broker, "a-queue", [held()], "an-inbox", max_wait=1.0, claims=claims)
    for name, verb in verbs.items():
        await error_of(name, verb, BrokerClosedError, within=5.0)


def test_a_broker_that_was_never_opened_has_no_claims(broker):
    assert broker.claim_of(held()) is None
    assert broker.claim_to_all("a-queue") is None
