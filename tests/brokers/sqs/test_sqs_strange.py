"""Whatever listens at the endpoint may answer anything: then nothing counts as confirmed."""

from __future__ import annotations

import json
import secrets
import time

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.sqs.api import _outcomes
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import Message
from http_servers import always, response, serving

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/x-amz-json-1.0"}
STRANGE = [
    b"{}",
    b"[]",
    b"null",
    b'"x"',
    b"7",
    b"<html>hi</html>",
    b"",
    b"\xff\x00",
    b'{"QueueUrl": 7}',
    b'{"QueueUrl"',
]


def url_of(server):
    return f"sqs://eu-central-1?endpoint=http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("body", STRANGE)
async def test_a_server_that_is_no_sqs_is_named_as_such_when_it_is_opened(body):
    async with serving(always(response(200, body, **JSON))) as server:
        with pytest.raises(BrokerUnavailableError, match=r"does not answer get_queue_url as SQS does|cannot reach"):
            await open_broker(url_of(server)).open()


async def test_a_send_is_confirmed_only_by_a_word_on_each_message():
    answers = []

    async def answer(asked, writer):
        verb = asked.headers["x-amz-target"].rpartition(".")[2]
        said = {"QueueUrl": "http://127.0.0.1/1/q"} if verb == "GetQueueUrl" else answers.pop(0)
        writer.write(response(200, json.dumps(said).encode(), **JSON))

    async with serving(answer) as server, open_broker(url_of(server)) as broker:
        messages = [Message(id="one"), Message(id="two")]
        done = {"Id": "0", "MessageId": "m", "MD5OfMessageBody": "x"}
        for said in ({}, {"QueueUrl": "x"}, {"Successful": []}, {"Successful": [done]}, {"Failed": []}):
            answers.append(said)
            with pytest.raises(BrokerUnavailableError, match="send again"):
                await broker.send("q", messages)
        answers.append({"Successful": [done, {**done, "Id": "1"}]})
        await broker.send("q", messages)
        answers[:] = [{"Successful": []}] * 8
        with pytest.raises(BrokerUnavailableError, match="does not answer get_queue_attributes as SQS does"):
            await broker.stats("q")


def test_an_entry_that_the_answer_does_not_name_is_not_done():
    answer = {"Successful": [{"Id": "4"}], "Failed": [{"Id": "5", "Code": "Bad", "Message": "no", "SenderFault": True}]}
    outcomes = dict(_outcomes(range(4, 7), answer))
    assert outcomes[4] is None
    assert (outcomes[5].code, outcomes[5].is_ours) == ("Bad", True)
    assert (outcomes[6].is_ours, outcomes[6].text) == (False, "it did not say what became of it")


async def test_a_time_that_no_message_lives_to_see_keeps_it_from_nobody(moto):
    queue = f"q-{secrets.token_hex(4)}"
    async with open_broker(moto.url()) as broker:
        await broker.create_queue(queue)
        url = await broker._queues.url(queue, 1)
        for due in ("9e14", str(time.time() + 1e9)):
            attribute = {"dumbwaiter.due": {"DataType": "Number", "StringValue": due}}
            await broker._api.ask("send_message", QueueUrl=url, MessageBody="hi", MessageAttributes=attribute)
            (delivery,) = await broker.receive(queue, max_messages=1, max_wait=10.0)
            assert delivery.message.body == b"hi"
            await broker.complete([delivery])
