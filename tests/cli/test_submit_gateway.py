"""`dumbwaiter submit`, `result` and `cancel` through a gateway, and what is the same straight on the queue."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from processes import environment, starting

MODELS = """
import pathlib
import time


class Shout:
    def __call__(self, text: str) -> str:
        if text == "wrong":
            raise ValueError("this text is wrong")
        return text.upper()


class Words:
    def __call__(self, text: str):
        for word in text.split():
            yield word + " "


class Numbers:
    def __call__(self, text: str):
        for number in range(int(text)):
            yield {"n": number}


class Brief:
    def __call__(self, text: str) -> str:
        pathlib.Path("brief.running").touch()
        time.sleep(2)
        return text


class Endless:
    def __call__(self, text: str):
        for number in range(1200):
            pathlib.Path("running").write_text(str(number))
            yield "."
            time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "light.py").write_text(MODELS)
    with starting(folder) as start:
        yield start("light:Shout", "light:Words", "light:Numbers", "light:Brief", "light:Endless").ready()


@pytest.fixture(params=["gateway", "queue"])
def way(request, served):
    """The options that name the way: through the gateway, or straight on the queue."""
    return ("--gateway", served.gateway) if request.param == "gateway" else ()


def test_answers_come_in_the_order_of_the_inputs_with_their_errors(served, way):
    shown = served.run("submit", "shout", *way, "a b", "wrong", "c d")
    assert (shown.returncode, shown.stdout) == (1, "a b\tA B\nc d\tC D\n")
    assert shown.stderr == "dumbwaiter: error: wrong: model-error: ValueError: this text is wrong\n"
    shown = served.run("submit", "shout", "--json", *way, "a b")
    answer = json.loads(shown.stdout)
    assert (answer["input"], answer["status"], answer["output"]) == ("a b", "succeeded", "A B")
    assert answer["id"]
    assert answer["timings"]["device"] > 0


def test_a_request_is_left_fetched_and_cannot_be_cancelled_any_more(served, way):
    left = served.run("submit", "shout", "--no-wait", *way, "later")
    assert left.returncode == 0
    id_ = left.stdout.strip()
    assert served.run("result", "--wait", "30s", *way, id_).stdout == "LATER\n"
    shown = served.run("cancel", *way, id_)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == f"dumbwaiter: error: {id_}: it had succeeded before; see: dumbwaiter result {id_}\n"


def test_a_cancelled_request_says_so(served, way):
    holding = served.run("submit", "endless", "--no-wait", *way, "x").stdout.strip()
    id_ = served.run("submit", "endless", "--no-wait", *way, "y").stdout.strip()
    shown = served.run("cancel", *way, id_, holding)
    assert (shown.returncode, shown.stdout) == (0, f"canceled {id_}\ncanceled {holding}\n")
    shown = served.run("result", *way, id_)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "canceled: the request was cancelled by its caller" in shown.stderr
    shown = served.run("result", "--json", *way, id_)
    assert json.loads(shown.stdout)["status"] == "canceled"
    assert json.loads(served.run("cancel", "--json", *way, id_).stdout) == {"id": id_, "status": "canceled"}


def test_a_stream_prints_what_comes(served, way):
    shown = served.run("submit", "words", "--stream", *way, "two eggs please")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "two eggs please \n", "")
    assert served.run("submit", "numbers", "--stream", *way, "2").stdout == '{"n":0}\n{"n":1}\n'
    shown = served.run("submit", "words", "--stream", "--json", *way, "a b")
    assert [json.loads(line) for line in shown.stdout.splitlines()] == [{"output": "a "}, {"output": "b "}]
    assert served.run("submit", "shout", "--stream", *way, "no generator").stdout == "NO GENERATOR\n"
    shown = served.run("submit", "shout", "--stream", *way, "wrong")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == "dumbwaiter: error: model-error: ValueError: this text is wrong\n"


def press_ctrl_c(served, arguments, *, once):
    """Exit code and stderr of a command that Ctrl-C meets *once* something is so."""
    command = [sys.executable, "-m", "dumbwaiter", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Under nohup, or in the background of a script, it is ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=served.project, env=environment(), **streams)
    signal.signal(signal.SIGINT, before)
    once(process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors.decode().strip()


def has_connected(process):
    looked_at, give_up_at = psutil.Process(process.pid), time.monotonic() + 30
    while time.monotonic() < give_up_at:
        if any(one.path.endswith("queue.db") for one in looked_at.open_files()):
            return
        if any(one.status == psutil.CONN_ESTABLISHED for one in looked_at.net_connections()):
            return
        time.sleep(0.02)
    raise AssertionError("it has connected to nothing")


def test_ctrl_c_in_a_stream_stops_the_model(served, way):
    def says_something(process):
        assert process.stdout.read(3) == b"..."

    # The second one would wait for a minute if the model went on with the first.
    for _ in range(2):
        arguments = ("submit", "endless", "--stream", *way, "x")
        code, complaint = press_ctrl_c(served, arguments, once=says_something)
        assert (code, complaint) == (130, "gave up the stream; its request is cancelled, unless it had ended")


def test_ctrl_c_while_waiting_for_an_answer_says_what_becomes_of_the_request(served, way):
    running = served.project / "brief.running"
    running.unlink(missing_ok=True)

    def runs(_):
        give_up_at = time.monotonic() + 30
        while not running.exists():
            assert time.monotonic() < give_up_at
            time.sleep(0.02)

    code, complaint = press_ctrl_c(served, ("submit", "brief", *way, "x y"), once=runs)
    assert code == 130
    named = "" if way else r": [0-9a-f]{32}"
    assert re.fullmatch(
        rf"gave up waiting for 1 answer{named}; a worker may still run what waits, and nobody gets the answer;"
        r" with --no-wait it could be fetched or cancelled by its id",
        complaint,
    )


def test_ctrl_c_while_waiting_for_a_result_leaves_the_request_alone_and_says_so(served, way):
    id_ = served.run("submit", "endless", "--no-wait", *way, "x").stdout.strip()

    code, complaint = press_ctrl_c(served, ("result", "--wait", "50s", *way, id_), once=has_connected)
    assert code == 130
    again = " ".join([*way, id_])
    hint = f"ask again: dumbwaiter result {again}, or end it: dumbwaiter cancel {again}"
    assert complaint == f"gave up waiting for {id_}; {hint}"
    assert served.run("cancel", *way, id_).stdout == f"canceled {id_}\n"


def test_an_unknown_model_and_an_unknown_id_are_told(served):
    shown = served.run("submit", "shot", "--gateway", served.gateway, "x y", "y z")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith(f"dumbwaiter: error: gateway {served.gateway} answered 404 unknown-model: no model")
    assert "did you mean 'shout'" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    shown = served.run("result", "--gateway", served.gateway, "4711")
    assert shown.stderr.startswith(f"dumbwaiter: error: gateway {served.gateway} answered 404 unknown-prediction: ")


def test_what_excludes_each_other_is_refused_before_anything_is_sent(served):
    def complaint(*arguments):
        shown = served.run(*arguments)
        assert shown.returncode == 2
        return shown.stderr

    both = ("--gateway", served.gateway, "--broker", "sqlite:x.db")
    assert "--gateway and --broker exclude each other: a gateway knows" in complaint("submit", "shout", *both, "x y")
    for url in ("host:8080", "ftp://host"):
        wanted = f"{url!r} must begin with http:// or https://, like http://127.0.0.1:8080"
        assert wanted in complaint("submit", "m", "--gateway", url, "x y")
    wanted = "--api-key is for a gateway, and a broker asks for none; name a --gateway"
    assert wanted in complaint("submit", "shout", "--api-key", "foo", "x y")
    assert "--stream and --no-wait exclude each other" in complaint("submit", "m", "--stream", "--no-wait", "x y")
    assert "--output-dir and --stream exclude" in complaint("submit", "m", "--stream", "--output-dir", "d", "x y")
    assert "--stream is for one input at a time, and here are 2" in complaint("submit", "m", "--stream", "x y", "y z")


def test_a_gateway_that_wants_a_key_says_how_to_name_one(tmp_path):
    (tmp_path / "light.py").write_text(MODELS)
    with starting(tmp_path) as start:
        locked = start("light:Shout", DUMBWAITER_GATEWAY__AUTH="on").ready()
        way = ("--gateway", locked.gateway)
        asked = [
            ("submit", "shout", "a b"),
            ("submit", "shout", "--stream", "a b"),
            ("submit", "shout", "--no-wait", "a b"),
        ]
        for arguments in (*asked, ("result", "4711"), ("cancel", "4711"), ("submit", "shout", "--api-key", "x", "a b")):
            shown = locked.run(*arguments, *way)
            assert (shown.returncode, shown.stdout) == (1, "")
            assert "answered 401" in shown.stderr
            assert shown.stderr.endswith("; set DUMBWAITER_API_KEY or --api-key\n")
        assert 'curl -H "Authorization: Bearer $DUMBWAITER_API_KEY" ' in locked.models["shout"]["curl"]


def test_help_says_what_ctrl_c_does_not_stop(served):
    shown = " ".join(served.run("submit", "--help").stdout.split())
    assert "Ctrl-C ends the waiting, not what a worker has begun." in shown
    assert "To end that, leave it with --no-wait, then `dumbwaiter cancel ID`." in shown


def test_a_gateway_that_is_not_there_is_named(served):
    shown = served.run("submit", "shout", "--gateway", "http://127.0.0.1:9", "x y")
    assert shown.returncode == 1
    assert "gateway http://127.0.0.1:9: nothing listens there; check host and port, and that it runs" in shown.stderr


def test_a_gateway_that_is_away_is_told_with_the_command_that_asks_again(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    shown = run("result", "--wait", "1s", "--gateway", url, "0abc")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "it was asked about the kept request 0abc; when it is back: " in shown.stderr
    assert f": dumbwaiter result --gateway {url} --wait 60s 0abc\n" in shown.stderr
