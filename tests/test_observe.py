"""Logs: one line per event, for people and for machines, whatever is logged."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.observe import HumanFormatter, JsonFormatter, configure_logging


@pytest.fixture(autouse=True)
def logging_as_before():
    logs = [logging.getLogger(name) for name in (None, "asyncio", "dumbwaiter")]
    handlers, levels = logs[0].handlers[:], [log.level for log in logs]
    logs[2].setLevel(logging.NOTSET)
    yield
    logs[0].handlers[:] = handlers
    for log, level in zip(logs, levels, strict=True):
        log.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def record(text="hello", level=logging.INFO, exc_info=None, **extra):
    made = logging.makeLogRecord(
        {"name": "dumbwaiter.worker", "levelno": level, "levelname": logging.getLevelName(level)}
    )
    made.msg, made.exc_info = text, exc_info
    made.__dict__.update(extra)
    return made


def raised():
    try:
        int("first\nsecond")
    except ValueError as error:
        return type(error), error, error.__traceback__
    raise AssertionError("int() took it")


def logged(stream=None, *, level="info", log_format="auto"):
    stream = stream or io.StringIO()
    configure_logging(level=level, log_format=log_format, stream=stream)
    log = logging.getLogger("dumbwaiter.worker")
    log.info("model %s loaded", "infer", extra={"model": "infer", "seconds": 1.25})
    return stream.getvalue()


def test_people_read_one_line_with_the_facts_behind_it():
    text = logged()
    assert text.endswith(" INFO worker: model infer loaded model=infer seconds=1.25\n")
    assert "\x1b" not in text


def test_a_terminal_gets_colours():
    assert "\x1b[32mINFO\x1b[0m worker: model infer loaded" in logged(Terminal())


def test_machines_read_one_json_object_a_line():
    event = json.loads(logged(log_format="json"))
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "level": "info",
        "logger": "dumbwaiter.worker",
        "message": "model infer loaded",
        "model": "infer",
        "seconds": 1.25,
    }


def test_logs_go_to_stderr_unless_told_otherwise(capsys):
    configure_logging()
    logging.getLogger("dumbwaiter").warning("careful")
    out, err = capsys.readouterr()
    assert out == ""
    assert "WARNING dumbwaiter: careful" in err


def test_configuring_again_replaces_the_first_set_up():
    first, second = io.StringIO(), io.StringIO()
    configure_logging(stream=first)
    configure_logging(stream=second, level="warning")
    logging.getLogger("dumbwaiter").info("not this")
    logging.getLogger("dumbwaiter").error("this")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_asyncios_own_chatter_is_left_out_even_when_debugging():
    stream = io.StringIO()
    configure_logging(stream=stream, level="debug")
    logging.getLogger("asyncio").debug("Using selector")
    logging.getLogger("dumbwaiter").debug("ours")
    assert "ours" in stream.getvalue()
    assert "selector" not in stream.getvalue()


@pytest.mark.parametrize("name", ["botocore.auth", "aiormq.connection", "nats.aio", "azure.core", "grpc", "pulsar"])
def test_client_libraries_do_not_write_their_secrets_to_our_debug_log(name):
    stream = io.StringIO()
    configure_logging(stream=stream, level="debug")
    logging.getLogger(name).debug("x-amz-security-token: s3cret")
    logging.getLogger("a_library_that_no_adapter_silences").info("retrying")
    logging.getLogger("dumbwaiter.worker").debug("ours")
    assert "s3cret" not in stream.getvalue()
    assert "retrying" in stream.getvalue()
    assert "ours" in stream.getvalue()
    configure_logging(stream=stream, level="info")
    logging.getLogger("dumbwaiter.worker").debug("no more")
    assert "no more" not in stream.getvalue()


def test_what_a_foreigner_wrote_gives_no_orders_to_a_terminal():
    logging.getLogger().setLevel(logging.DEBUG)
    error = ValueError("\x1b[31m")
    text = HumanFormatter(colours=False).format(
        record("id \x1b[2J\x07", fact="\x9b0m", exc_info=(ValueError, error, None))
    )
    assert not set(text) & set("\x1b\x07\x9b")
    assert r"id \x1b[2J\x07 fact=\x9b0m (ValueError: \x1b[31m)" in text


def test_an_error_is_named_in_the_line_and_its_traceback_follows_only_when_debugging():
    formatter = HumanFormatter(colours=False)
    logging.getLogger().setLevel(logging.INFO)
    brief = formatter.format(record(level=logging.ERROR, exc_info=raised()))
    assert brief.endswith("ERROR worker: hello (ValueError: invalid literal for int() with base 10: 'first\\nsecond')")
    logging.getLogger().setLevel(logging.DEBUG)
    full = formatter.format(record(level=logging.ERROR, exc_info=raised()))
    assert "Traceback (most recent call last)" in full
    assert formatter.format(record(exc_info=(None, None, None))).endswith("INFO worker: hello")


def test_machines_get_the_traceback_in_the_event():
    event = json.loads(JsonFormatter().format(record(exc_info=raised())))
    assert "Traceback (most recent call last)" in event["exception"]


def test_a_fact_cannot_take_the_place_of_what_every_event_has():
    event = json.loads(JsonFormatter().format(record(level=logging.INFO, logger="evil", time="never", model="m")))
    assert (event["logger"], event["model"]) == ("dumbwaiter.worker", "m")
    assert event["time"] != "never"


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"\xff", float("nan"), 10**40, "\udcff", {("a", 1): "\udcff"}, OSError("x")]
)
def test_a_machines_line_is_json_whatever_the_fact_is(value):
    assert "fact" in json.loads(JsonFormatter().format(record(fact=value)))


@given(st.text())
def test_one_event_is_one_line_whatever_is_logged(text):
    logging.getLogger().setLevel(logging.INFO)
    human = HumanFormatter(colours=False).format(record(text, fact=text))
    assert len(human.splitlines()) == 1
    machine = JsonFormatter().format(record(text, fact=text))
    assert machine.count("\n") == 0
    assert json.loads(machine)["message"] == text
