"""An answer says whose it is, what came out, and where the time went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.answers import failed, failure_of, raise_for_failure, succeeded, timings_of
from dumbwaiter.envelope import from_structured, to_structured
from dumbwaiter.errors import PredictionError
from dumbwaiter.message import PREDICTION_FAILED, PREDICTION_SUCCEEDED, Failure, Message, Timings

TIMINGS = Timings(queued=0.5, batched=0.25, device=0.125, batch_size=3)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(**attributes):
    return Message(id="r1", subject="echo", tenant="acme", trace_parent=TRACE, reply_to="inbox", **attributes)


def test_an_output_is_addressed_to_its_request_and_carries_its_timings():
    answer = succeeded(request(), body=b"out", content_type="text/plain", timings=TIMINGS)
    assert (answer.type, answer.body, answer.content_type) == (PREDICTION_SUCCEEDED, b"out", "text/plain")
    assert (answer.correlation_id, answer.subject, answer.tenant) == ("r1", "echo", "acme")
    assert answer.trace_parent == TRACE
    assert answer.id != "r1"
    assert answer.reply_to is None
    assert timings_of(answer) == TIMINGS
    assert failure_of(answer) is None
    assert raise_for_failure(answer) is answer


def test_a_correlation_id_of_the_askers_own_wins_over_the_requests_id():
    answer = succeeded(request(correlation_id="mine"), body=b"", content_type="x", timings=TIMINGS)
    assert answer.correlation_id == "mine"


def test_a_failure_raises_with_all_its_data():
    failure = Failure(code="model-error", message="no", detail="Traceback", attempts=3)
    answer = failed(request(), failure)
    assert answer.type == PREDICTION_FAILED
    assert timings_of(answer) == Timings()
    with pytest.raises(PredictionError, match="model-error: no") as caught:
        raise_for_failure(answer)
    assert caught.value.failure == failure
    assert timings_of(failed(request(), failure, timings=TIMINGS)) == TIMINGS


def test_an_answer_of_another_program_may_leave_its_timings_out():
    assert timings_of(Message(body=b"out")) == Timings()


@given(st.builds(Failure, code=st.text(), message=st.text(), detail=st.text(), attempts=st.integers(0, 2**60)))
def test_any_failure_survives_storage(failure):
    stored = from_structured(to_structured(failed(request(), failure)))
    assert failure_of(stored) == failure
