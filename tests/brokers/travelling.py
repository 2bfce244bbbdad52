"""What is sent over a connection of another kind than the usual: there and back."""

from __future__ import annotations

from dumbwaiter.brokers import open_broker
from dumbwaiter.message import Message

LARGE = bytes(range(256)) * 2048


async def a_request_and_its_reply_travel(url: str) -> None:
    """A request is sent, received, answered with more than fits into a packet, and completed."""
    async with open_broker(url) as broker:
        await broker.create_queue("q")
        inbox = await broker.open_inbox()
        await broker.send("q", [Message(body=b"secret", reply_to=inbox.address)])
        (held,) = await broker.receive("q", max_messages=1, max_wait=10.0)
        assert held.message.body == b"secret"
        await broker.reply(held.message.reply_to, [Message(body=LARGE)])
        await broker.complete([held])
        (answer,) = await inbox.receive(max_messages=1, max_wait=10.0)
        assert answer.body == LARGE
