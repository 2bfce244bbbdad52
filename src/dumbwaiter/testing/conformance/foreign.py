"""Rules about messages of producers that know nothing of dumbwaiter, and write what cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dumbwaiter.brokers.served import BAD_ENVELOPE
from dumbwaiter.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dumbwaiter.testing.conformance.harness import Harness

_LARGE = 1024 * 1024
_UNREADABLE = {"priority": "junk"}


class ForeignRules:
    """Each test is a rule."""

    async def test_a_message_that_cannot_be_read_is_dead_lettered_and_costs_no_other(self, harness: Harness) -> None:
        await _costs_no_other(harness, _UNREADABLE, b"\xff")

    async def test_one_of_the_largest_size_that_cannot_be_read_costs_no_other(self, harness: Harness) -> None:
        largest = (await harness.capabilities()).max_message_nbytes or _LARGE
        # Of what a header holds some has to be escaped, so that it takes more room where it is written again.
        long = {"long": '"' * harness.longest_header}
        await _costs_no_other(harness, _UNREADABLE | long, bytes(min(largest, _LARGE) - harness.longest_header))

    async def test_one_with_the_most_headers_that_cannot_be_read_costs_no_other(self, harness: Harness) -> None:
        many = {f"header{place}": "x" for place in range(harness.most_headers - len(_UNREADABLE))}
        await _costs_no_other(harness, _UNREADABLE | many, b"\xff")


async def _costs_no_other(harness: Harness, headers: Mapping[str, str], body: bytes) -> None:
    async with harness.connect_to_queue() as (broker, queue):
        await harness.send_foreign(queue, headers, body)
        others = [Message(body=b"%d" % place) for place in range(3)]
        await broker.send(queue, others)
        taken = await harness.take(broker, queue, len(others))
        assert {d.message.id: d.message.body for d in taken} == {one.id: one.body for one in others}
        assert {d.delivery_count for d in taken} == {1}, "the others came more than once"
        await broker.complete(taken)
        await harness.expect_nothing(broker, queue)
        letters = await broker.dead_letters(queue)
        found = [(letter.reason, len(letter.message.body)) for letter in letters]
        assert found == [(BAD_ENVELOPE, len(body))], "it is no dead letter with its body"
        assert letters[0].message.body == body
