"""A notification names a result, and is the same message each time it is made for the same answer."""

from __future__ import annotations

import json

import pytest

from dumbwaiter.errors import BadInputError
from dumbwaiter.message import PREDICTION_NOTIFIED, WEBHOOK, WEBHOOK_EVENTS, Message
from dumbwaiter.notification import EVENTS, completed, progressed, read, wants

HOOK = "https://hooks.example.com/a"
ANSWER = Message(id="answer-1")


def asked(events=None, reply_to=None, hook=HOOK):
    extensions = {} if hook is None else {WEBHOOK: hook}
    if events is not None:
        extensions[WEBHOOK_EVENTS] = events
    return Message(id="request-1", tenant="acme", time=5.0, reply_to=reply_to, extensions=extensions)


def test_a_finished_request_is_told_to_its_webhook():
    (message,) = completed(asked(), ANSWER, model="cats")
    told = read(message)
    assert (told.id, told.model, told.url, told.event, told.style) == (
        "request-1",
        "cats",
        HOOK,
        "completed",
        "webhook",
    )
    assert (told.created_at, told.answer) == (5.0, "answer-1")
    assert (message.type, message.tenant, message.correlation_id) == (PREDICTION_NOTIFIED, "acme", "request-1")


def test_a_reply_address_that_is_a_url_is_told_as_well_in_a_message_of_its_own():
    hook, reply = completed(asked(reply_to="https://callers.example.com/r"), ANSWER, model="cats")
    assert (read(reply).style, read(reply).url) == ("reply", "https://callers.example.com/r")
    assert hook.id != reply.id


@pytest.mark.parametrize("reply_to", [None, "inbox/7"])
def test_a_request_without_a_url_has_nothing_to_be_sent(reply_to):
    assert completed(asked(hook=None, reply_to=reply_to), ANSWER, model="cats") == []


def test_the_same_answer_makes_the_same_id_and_another_answer_another():
    first, again, other = (completed(asked(), answer, model="cats")[0] for answer in (ANSWER, ANSWER, Message(id="2")))
    assert first.id == again.id != other.id


def test_ids_fit_into_a_header_and_a_signature_whatever_the_request_was_called():
    request = Message(id="ü.\r\n", extensions={WEBHOOK: HOOK})
    (message,) = completed(request, ANSWER, model="cats")
    assert message.id.isascii()
    assert message.id.replace("_", "").isalnum()
    assert read(message).id == "ü.\r\n"


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        (None, {"completed"}),
        ("completed", {"completed"}),
        ("start,output", {"start", "output"}),
        ("start, logs ,completed", {"start", "logs", "completed"}),
        ("", set()),
        ("nonsense", set()),
    ],
)
def test_only_the_events_that_were_asked_for_are_wanted(events, wanted):
    assert {event for event in EVENTS if wants(asked(events), event)} == wanted
    assert bool(completed(asked(events), ANSWER, model="cats")) == ("completed" in wanted)


def test_without_a_webhook_nothing_is_wanted():
    assert not any(wants(asked(hook=None), event) for event in EVENTS)


def test_progress_carries_the_object_to_send_and_each_occasion_is_a_message():
    def told(event, occasion):
        return progressed(asked("start,output"), event, b'{"status": "processing"}', model="cats", occasion=occasion)

    (first,), (second,) = told("output", "1"), told("output", "2")
    assert json.loads(bytes(read(first).prediction)) == {"status": "processing"}
    assert first.id != second.id
    assert told("logs", "3") == []


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[1]", b'{"id": 1, "model": "m", "url": "u"}', b"[" * 100_000])
def test_what_is_no_notification_is_said(body):
    with pytest.raises(BadInputError, match="not a notification"):
        read(Message(body=body))
