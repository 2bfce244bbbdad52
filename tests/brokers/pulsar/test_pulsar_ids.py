"""What stands before pulsar-lite: each connection's consumers have ids of their own there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers import open_broker
from dumbwaiter.message import Message
from dumbwaiter.testing.servers import PulsarServer, ServerStartError
from dumbwaiter.testing.servers.pulsar_ids import rewritten

URL = b"pulsar://127.0.0.1:1"
FLOW = bytes.fromhex("080b 5a04 0803 1001")  # type 11; flow: consumer_id 3, one permit
LOOKUP_ANSWER = bytes.fromhex("0818 c20108 0a02 6161 1001 1807")  # type 24: at "aa", response 1, request_id 7
PING = bytes.fromhex("0812 920100")


def test_a_consumers_id_is_another_one_there_and_the_same_again_on_the_way_back():
    there = rewritten(FLOW, add=1_000_000, url=URL)
    assert there == bytes.fromhex("080b 5a06 08c3843d 1001")
    assert rewritten(there, add=-1_000_000, url=URL) == FLOW


def test_the_address_in_the_answer_to_a_look_up_leads_back_here():
    found = rewritten(LOOKUP_ANSWER, add=0, url=URL)
    assert b"\x0a\x14" + URL in found
    assert b"aa" not in found
    assert b"\x12\x15pulsar+ssl://[::1]:22" in rewritten(LOOKUP_ANSWER, add=0, url=b"pulsar+ssl://[::1]:22")


def test_other_commands_pass_as_they_are():
    assert rewritten(PING, add=5, url=URL) == PING


@given(st.integers(0, 2**40), st.integers(1, 2**30))
def test_any_id_comes_back(consumer, add):
    value, place = bytearray(), consumer
    while place >= 0x80:
        value.append(place & 0x7F | 0x80)
        place >>= 7
    value.append(place)
    flow = bytes((0x08, 11, 0x5A, len(value) + 1, 0x08)) + bytes(value)
    assert rewritten(rewritten(flow, add=add, url=URL), add=-add, url=URL) == flow


@pytest.mark.anyio
async def test_two_processes_receive_from_one_queue_and_what_was_there_is_there_after_a_kill(tmp_path):
    server = PulsarServer(tmp_path)
    server.start()
    try:
        async with open_broker(server.url) as one, open_broker(server.url) as two:
            await one.create_queue("q")
            await one.send("q", [Message(), Message()])
            held = [(await broker.receive("q", max_messages=1, max_wait=5.0))[0] for broker in (one, two)]
            assert len({delivery.message.id for delivery in held}) == 2
        server.stop()
        server.start()
        async with open_broker(server.url) as one:
            assert await one.queues() == ["q"]
    finally:
        server.stop()


def test_a_program_that_does_not_start_is_told(tmp_path):
    server = PulsarServer(tmp_path)
    server._command = (*server._command, "--no-such-flag")
    server.start_seconds = 2.0
    with pytest.raises(ServerStartError, match="no-such-flag"):
        server.start()
