"""Traces from files, and what is said of those that are none."""

from __future__ import annotations

import numpy as np
import pytest

from dumbwaiter.errors import ConfigError
from dumbwaiter.plan.loading import load
from dumbwaiter.plan.services import Curve, Inputs
from dumbwaiter.plan.traces import faster
from dumbwaiter.policies.service_times import Bucket, ServiceTimes

PLAIN = Inputs(Curve(each=0.1))


@pytest.fixture
def written(tmp_path):
    def write(text, name="trace.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_csv_of_arrivals_takes_the_rest_from_the_model(written):
    (trace,) = load(written("arrival\n100\n102.5\n101\n"), PLAIN).values()
    assert trace.arrivals.tolist() == [0.0, 1.0, 2.5]
    assert trace.each.tolist() == [0.1] * 3
    assert trace.duration == 2.5


def test_service_is_what_an_input_takes_alone(written):
    path = written("arrival, service\n0, 0.5\n1, 0.01\n2,\n")
    (trace,) = load(path, Inputs(Curve(fixed=0.2, each=0.1, max_batch=4))).values()
    assert trace.each.tolist() == pytest.approx([0.3, 0.0, 0.1])


def test_sizes_take_what_was_measured_of_them(written):
    times = ServiceTimes(buckets={10: Bucket(0.1, 30.0, 0.0), 20: Bucket(2.0, 10.0, 0.0)})
    (trace,) = load(written("time,size\n0,1000\n1,1000000\n"), Inputs(Curve(), measured=times)).values()
    assert trace.each.tolist() == [0.1, 2.0]
    assert trace.nbytes.tolist() == [1_000, 1_000_000]


def test_models_are_traces_of_their_own_or_one(written):
    path = written("arrival,model\n5,cats\n6,dogs\n7,cats\n")
    traces = load(path, PLAIN)
    assert {name: trace.arrivals.tolist() for name, trace in traces.items()} == {"cats": [0.0, 2.0], "dogs": [0.0]}
    (both,) = load(path, PLAIN, as_one=True).values()
    assert both.arrivals.tolist() == [0.0, 1.0, 2.0]


def test_azures_requests_came_when_they_ended_less_how_long_they_took(written):
    (trace,) = load(written("app,func,end_timestamp,duration\na,f,10.0,4.0\na,f,9.0,1.0\n"), PLAIN).values()
    assert trace.name == "a/f"
    assert trace.arrivals.tolist() == [0.0, 2.0]
    assert trace.each.tolist() == [4.0, 1.0]


def test_json_lines_may_be_a_log_that_tells_of_other_things_too(written):
    path = written(
        '{"time": "2026-01-31T12:00:00.000+00:00", "message": "gateway listens on http://127.0.0.1:8080"}\n'
        '{"time": "2026-01-31T12:00:01.000+00:00", "message": "accepted", "model": "infer", "nbytes": 512}\n\n'
        '{"time": "2026-01-31T12:00:03.500Z", "message": "accepted", "model": "infer", "nbytes": 2048}\n',
        "gateway.jsonl",
    )
    (trace,) = load(path, PLAIN).values()
    assert (trace.name, trace.arrivals.tolist(), trace.nbytes.tolist()) == ("infer", [0.0, 2.5], [512, 2048])


LOG_OF_SERVE = """\
loading slow
{"time":"2026-01-31T12:00:00.000+00:00","logger":"dumbwaiter.gateway","message":"gateway listens on http://[::1]:80"}
{"time":"2026-01-31T12:00:01.000+00:00","logger":"dumbwaiter.gateway.requests","message":"request","model":"slow","nbytes":2}
{'a': 'dictionary that the model has printed'}
{"time":"2026-01-31T12:00:02.500+00:00","logger":"dumbwaiter.gateway.requests","message":"request","model":"slow","nbytes":2}
slow: 1 -> 0 workers (nothing waits; work 0 ms, load 0)
stopping: 1 request is on its way
"""


@pytest.mark.parametrize("name", ["serve.log", "serve", "serve.txt", "serve.csv"])
def test_lines_of_a_log_that_are_no_json_are_passed_over_and_counted_whatever_it_is_called(written, name, caplog):
    (trace,) = load(written(LOG_OF_SERVE, name), PLAIN).values()
    assert (trace.name, trace.arrivals.tolist()) == ("slow", [0.0, 1.5])
    (said,) = caplog.messages
    assert said.endswith(f"{name}: 4 lines are no JSON objects, the first of them line 1; passed over")


def test_a_csv_is_one_whatever_it_is_called(written):
    (trace,) = load(written("arrival\n100\n102.5\n", "requests.log"), PLAIN).values()
    assert trace.arrivals.tolist() == [0.0, 2.5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model slow is ready\n", "holds no requests: line 1 is no JSON object; a gateway's log holds them where"),
        ('{"time": 1, "message": "ready"}\n', r"holds no requests; .* gateway\.log_requests = true"),
        (
            '[{"arrival": 1},\n {"arrival": 2}]\n',
            "holds no requests: 2 lines are no JSON objects, the first .* line 1;",
        ),
    ],
)
def test_of_a_log_without_requests_it_is_said_how_they_come_into_it(written, text, said):
    with pytest.raises(ConfigError, match=said):
        load(written(text, "serve.log"), PLAIN)


def test_a_trace_can_be_replayed_faster(written):
    (trace,) = load(written("arrival\n0\n10\n"), PLAIN).values()
    twice = faster(trace, 2.0)
    assert twice.arrivals.tolist() == [0.0, 5.0]
    assert (twice.duration, twice.work) == (5.0, trace.work)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no column arrival, time or end_timestamp, but nothing"),
        ("arrivals\n1\n", "did you mean 'arrival'"),
        ("arrival\n", "holds no requests"),
        ("end_timestamp\n1\n", "no duration"),
        ("arrival\n1\nsoon\n", "trace.csv:3: arrival 'soon' is neither seconds nor a date"),
        ("arrival\n1\nnan\n", "trace.csv:3: arrival 'nan' is no moment"),
        ("arrival,model\n1,a\n,a\n", "trace.csv:3 does not say when"),
        ("arrival,service\n1,-3\n", "trace.csv:2: service '-3' is no number from 0 to"),
        ("arrival,size\n1,large\n", "trace.csv:2: size 'large' is no number from 0 to"),
    ],
)
def test_what_is_no_trace_is_told_by_its_line(written, text, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        load(written(text), PLAIN)


def test_what_is_no_json_is_told_by_its_line(written):
    with pytest.raises(ConfigError, match=r"trace.jsonl:2 is no JSON object"):
        load(written('{"arrival": 1}\n{"arrival": \n', "trace.jsonl"), PLAIN)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.csv cannot be read"):
        load(tmp_path / "nowhere.csv", PLAIN)


def test_a_large_trace_is_read_as_it_was_written(written):
    arrivals = np.sort(np.random.default_rng(1).uniform(0, 100, 5_000)).round(6)
    (trace,) = load(written("arrival\n" + "\n".join(map(str, arrivals))), PLAIN).values()
    assert trace.arrivals == pytest.approx(arrivals - arrivals[0])
