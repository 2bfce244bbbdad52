"""Client.map: many inputs from ordinary code, bounded in flight, in order or as they come."""

from __future__ import annotations

import pytest
from service import Service
from test_async_map import Taken

from dumbwaiter import Client
from dumbwaiter.errors import BadInputError, PredictionError, PredictionTimeoutError


@pytest.fixture
def client(service: Service):
    with Client(service.url) as client:
        yield client


@pytest.mark.parametrize("in_flight", [0, 1, 3, 1000])
def test_outputs_come_in_the_order_of_their_inputs(client, in_flight):
    assert list(client.map("echo", range(50), in_flight=in_flight)) == list(range(50))
    assert list(client.map("echo", [])) == []


def test_unordered_outputs_all_come_once(client):
    assert sorted(client.map("echo", range(50), in_flight=7, ordered=False)) == list(range(50))


def test_inputs_are_taken_no_faster_than_outputs(client, service):
    inputs = Taken(100)
    outputs = client.map("echo", inputs, in_flight=4)
    for number in range(10):
        assert next(outputs) == number
        assert inputs.count == number + 4
    outputs.close()
    assert len(service.requests) <= 14


def test_the_first_error_ends_it(client, service):
    with pytest.raises(PredictionError, match="I do not like this one"):
        list(client.map("fail", range(50), in_flight=4))
    service.until(lambda: client._async._door._asker.waiting() == set())


@pytest.mark.parametrize("ordered", [True, False])
def test_errors_come_in_their_places_where_they_are_asked_for(client, ordered):
    outputs = list(client.map("echo", [1, object(), 3], return_exceptions=True, ordered=ordered))
    assert sum(isinstance(output, BadInputError) for output in outputs) == 1
    assert {output for output in outputs if isinstance(output, int)} == {1, 3}
    if ordered:
        assert isinstance(outputs[1], BadInputError)


def test_an_input_that_cannot_be_sent_comes_after_the_outputs_before_it(client):
    outputs = client.map("echo", [1, 2, object(), 4])
    assert [next(outputs), next(outputs)] == [1, 2]
    with pytest.raises(BadInputError, match="this input cannot be sent"):
        next(outputs)


def test_the_timeout_holds_for_each(client):
    outputs = list(client.map("silent", range(3), timeout=0.05, return_exceptions=True))
    assert [type(output) for output in outputs] == [PredictionTimeoutError] * 3


@pytest.mark.parametrize("ordered", [True, False])
def test_leaving_the_loop_early_gives_up_what_is_under_way(client, service, ordered):
    outputs = client.map("echo", range(100), in_flight=5, ordered=ordered)
    for _ in outputs:
        break
    outputs.close()
    service.until(lambda: client._async._door._asker.waiting() == set())
    assert len(service.requests) <= 6
