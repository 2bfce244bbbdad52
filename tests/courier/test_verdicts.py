"""What a try came to, in a word for programs and a line for people."""

from __future__ import annotations

import pytest

from dumbwaiter.courier import verdicts
from dumbwaiter.courier.posts import SupersededError
from dumbwaiter.errors import (
    BadInputError,
    BlobDamagedError,
    BlobError,
    BlobNotFoundError,
    ForbiddenUrlError,
    OutboundError,
)
from dumbwaiter.outbound import Response
from dumbwaiter.policies.delivering import MAX_TRIES, Again, Done, Stop

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ForbiddenUrlError("http://a/", "it is http"), "forbidden-url"),
        (BadInputError("not a notification"), "bad-notification"),
        (SupersededError("r1", "a1"), "superseded"),
        (BlobDamagedError("the result of 'r1'", "is damaged"), "result-damaged"),
    ],
)
def test_what_no_other_try_can_help_stops_at_once(error, reason):
    verdict = verdicts.of_error(error, 1, most=MAX_TRIES)
    assert verdict.end == Stop(reason)
    assert str(error) in verdict.why


def test_what_may_be_secret_in_a_url_is_not_said():
    error = ForbiddenUrlError("https://user:s3cret@example.com/hook?token=s3cret", "it holds a user name or password")
    verdict = verdicts.of_error(error, 1, most=MAX_TRIES)
    assert verdict.why.startswith("'https://example.com/hook")
    assert verdict.why.endswith("must not be reached: it holds a user name or password")
    assert "s3cret" not in verdict.why


def test_the_receiver_is_named_before_the_reason():
    verdict = verdicts.of_response(Response(status=410, headers={}, url="https://a/?b"), 1, most=MAX_TRIES)
    assert verdict.at("https://a/") == verdicts.Verdict(Stop("webhook-gone"), "https://a/: it answered 410")


def test_a_result_that_is_gone_may_come_back_until_the_tries_are_over():
    error = BlobNotFoundError("results/1")
    assert isinstance(verdicts.of_error(error, 1, most=MAX_TRIES).end, Again)
    assert verdicts.of_error(error, MAX_TRIES, most=MAX_TRIES).end == Stop("result-gone")


@pytest.mark.parametrize("error", [OutboundError("it broke", transient=True), BlobError("the store is down")])
def test_the_rest_is_tried_again_and_stops_in_the_end(error):
    assert isinstance(verdicts.of_error(error, 1, most=MAX_TRIES).end, Again)
    assert verdicts.of_error(error, MAX_TRIES, most=MAX_TRIES) == verdicts.Verdict(Stop("webhook-failed"), str(error))


def test_an_error_that_nobody_expects_is_raised():
    with pytest.raises(ZeroDivisionError):
        verdicts.of_error(ZeroDivisionError(), 1, most=MAX_TRIES)


def test_a_receiver_that_asks_for_patience_gets_it():
    response = Response(status=429, headers={"retry-after": "300"}, url="https://a/")
    assert verdicts.of_response(response, 1, most=MAX_TRIES).end == Again(300.0)
    assert verdicts.of_response(Response(status=204, headers={}, url=""), 1, most=MAX_TRIES).end == Done()
