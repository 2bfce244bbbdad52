"""Every error says the thing, the reason and the next step, and carries its data."""

from __future__ import annotations

import inspect

import pytest

from dumbwaiter import errors
from dumbwaiter.errors import (
    BadInputError,
    BlobError,
    BlobExistsError,
    BlobNotFoundError,
    BrokerClosedError,
    BrokerError,
    DeadLetterNotFoundError,
    DumbwaiterError,
    ForbiddenUrlError,
    GatewayError,
    GatewayUnavailableError,
    InboxGoneError,
    InvalidQueueNameError,
    LockLostError,
    MessageTooLargeError,
    MissingExtraError,
    OutboundError,
    PermanentError,
    PredictionError,
    PredictionNotFoundError,
    PredictionTimeoutError,
    QueueNotFoundError,
    UnknownModelError,
)
from dumbwaiter.message import Delivery, Failure, Message


def delivery(name):
    return Delivery(message=Message(id=name), queue="q", lock_token="t", locked_until=0.0, delivery_count=1)


def test_every_error_of_ours_is_a_dumbwaiter_error_and_ends_in_error():
    ours = [one for _, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__]
    assert len(ours) > 15
    assert all(issubclass(one, DumbwaiterError) and one.__name__.endswith("Error") for one in ours)


@pytest.mark.parametrize(
    ("error", "data", "words"),
    [
        (
            MissingExtraError("torch", "torch"),
            {"package": "torch", "extra": "torch"},
            ["pip install 'dumbwaiter[torch]'"],
        ),
        (QueueNotFoundError("cats"), {"queue": "cats"}, ["'cats'", "start a worker", "create_queue('cats')"]),
        (InvalidQueueNameError("a b"), {"name": "a b"}, ["'a b' cannot name a queue", "letters, digits", "at most 80"]),
        (
            DeadLetterNotFoundError("cats", ["1", "x"]),
            {"queue": "cats", "names": ["1", "x"]},
            ["no dead letter 1, x in queue 'cats'", "dumbwaiter dead-letters list cats"],
        ),
        (MessageTooLargeError(9, 5), {"nbytes": 9, "limit": 5}, ["9 bytes", "limit of 5", "claim check"]),
        (InboxGoneError("a/1"), {"address": "a/1"}, ["'a/1'", "gone away"]),
        (
            GatewayError("http://g", "slow down", status=429, code="rate-limited", retry_after=7.0),
            {"url": "http://g", "detail": "slow down", "status": 429, "code": "rate-limited", "retry_after": 7.0},
            ["gateway http://g answered 429 rate-limited: slow down"],
        ),
        (GatewayUnavailableError("http://g", "hung up"), {"status": None, "code": ""}, ["gateway http://g: hung up"]),
        (
            UnknownModelError("http://g", "cats", "no model named 'cats'", ["dogs"]),
            {"model": "cats", "queue": "cats", "models": ["dogs"], "status": 404},
            ["gateway http://g", "no model named 'cats'"],
        ),
        (PredictionNotFoundError("http://g", "7", "none"), {"id": "7", "status": 404}, ["unknown-prediction: none"]),
        (BlobNotFoundError("k"), {"key": "k"}, ["no blob under 'k'"]),
        (
            ForbiddenUrlError("http://a/", "it is http"),
            {"url": "http://a/", "reason": "it is http"},
            ["'http://a/' must not be reached: it is http"],
        ),
        (
            OutboundError("it answered 503", transient=True, status=503),
            {"transient": True, "status": 503},
            ["it answered 503"],
        ),
        (BlobExistsError("k"), {"key": "k"}, ["already exists under 'k'"]),
        (BrokerClosedError(), {}, ["async with"]),
        (BrokerClosedError("closed by hand"), {}, ["closed by hand"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_carries_its_data_and_says_what_to_do(error, data, words):
    assert {name: getattr(error, name) for name in data} == data
    for word in words:
        assert word in str(error)


def test_lost_locks_are_carried_all_and_named_up_to_three():
    few = LockLostError([delivery("a")], [delivery("b")])
    assert str(few) == "lock lost on 1 message(s): a"
    assert [one.message.id for one in few.renewed] == ["b"]
    many = LockLostError([delivery(name) for name in "abcde"])
    assert str(many) == "lock lost on 5 message(s): a, b, c and 2 more"
    assert len(many.deliveries) == 5
    assert many.renewed == []


def test_a_failed_prediction_says_code_and_message_and_carries_the_failure():
    failure = Failure(code="bad-input", message="not an image", attempts=1)
    error = PredictionError(failure)
    assert str(error) == "bad-input: not an image"
    assert error.failure is failure


def test_errors_that_carry_values_say_of_which_type():
    """A type checker resolves these names; to everybody else they cost no import."""
    assert LockLostError.__init__.__annotations__["deliveries"] == "Sequence[Delivery]"
    assert LockLostError.__init__.__annotations__["renewed"] == "Sequence[Delivery]"
    assert PredictionError.__init__.__annotations__["failure"] == "Failure"


def test_errors_can_be_caught_by_their_kind():
    assert issubclass(PredictionTimeoutError, TimeoutError)
    assert issubclass(BadInputError, PermanentError)
    assert issubclass(BlobNotFoundError, BlobError)
    assert issubclass(QueueNotFoundError, BrokerError)
