"""What people and programs see of `dumbwaiter serve`."""

from __future__ import annotations

import json
import re

import pytest

from dumbwaiter.autoscale import Scaled
from dumbwaiter.cli.serve_view import ServeView
from dumbwaiter.cli.status_pipe import Report
from dumbwaiter.cli.supervisor import Child, Plan
from dumbwaiter.config import GatewaySettings, ModelSettings, Settings
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.policies.retrying import before_next_load
from dumbwaiter.testing import eventually
from processes import Terminal

TEXT = {"input": {"kind": "text"}}


class Clock:
    """Seconds that go on when the test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def view_of(*names, as_json=False, clock=None, **settings):
    specs = [ModelSpec(name=name, target=f"light:{name.title()}", project="/project") for name in names]
    view = ServeView(Settings(**{"broker": "sqlite:/q.db", **settings}), specs, as_json=as_json, clock=clock or Clock())
    view.children = [Child(Plan("gateway", None, (), role="gateway")), *(Child(Plan(name, name, ())) for name in names)]
    view.children.append(Child(Plan("courier", None, (), role="courier")))
    return view


def report(view, name, state, **facts):
    child = next(child for child in view.children if child.plan.name == name)
    child.report = Report(state=state, **facts)
    view.reported(child)


def leave(view, name):
    child = next(child for child in view.children if child.plan.name == name)
    view.children.remove(child)
    view.left(child)


def make_ready(view, *but):
    for child in view.children:
        if child.plan.name in but:
            continue
        address = "http://127.0.0.1:8080" if child.plan.role == "gateway" else ""
        report(view, child.plan.name, "ready", address=address, signature=TEXT if child.plan.model else {})


def events(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_addresses_are_printed_once_when_all_is_ready(capsys):
    with view_of("cats", "a-model-with-a-long-name") as view:
        report(view, "gateway", "ready", address="http://127.0.0.1:8080")
        assert capsys.readouterr().out == ""
        make_ready(view)
        make_ready(view)
    shown = capsys.readouterr().out
    assert re.fullmatch(
        r"""dumbwaiter is ready after [\d.]+ m?s

  gateway                  http://127\.0\.0\.1:8080
  cats                     light:Cats in /project
  a-model-with-a-long-name light:A-Model-With-A-Long-Name in /project
  broker                   sqlite:/q\.db

Try it:
  curl --data-binary 'some text' -H 'Content-Type: text/plain' http://127\.0\.0\.1:8080/v1/models/cats/predictions
  curl --data-binary .* http://127\.0\.0\.1:8080/v1/models/a-model-with-a-long-name/predictions

Ctrl-C stops it\.
""",
        shown,
    )


@pytest.mark.parametrize("as_json", [False, True])
def test_the_broker_is_shown_without_its_password(capsys, as_json):
    with view_of("cats", broker="amqp://user:s3cret@host/", as_json=as_json) as view:
        make_ready(view)
    shown = capsys.readouterr()
    assert "amqp://host/" in shown.out
    assert "s3cret" not in shown.out + shown.err


def test_where_keys_are_needed_the_request_to_try_has_one_and_the_address_it_listens_on_is_shown(capsys):
    with view_of("cats", gateway=GatewaySettings(host="0.0.0.0")) as view:
        make_ready(view)
    shown = capsys.readouterr().out
    assert "  gateway      http://127.0.0.1:8080 (listens on 0.0.0.0)\n" in shown
    assert """  curl -H "Authorization: Bearer $DUMBWAITER_API_KEY" --data-binary 'some text' """ in shown


def test_without_a_terminal_it_says_what_it_loads_and_that_it_stopped(capsys):
    with view_of("cats", "dogs") as view:
        view.stopping(hurry=False)
        view.stopping(hurry=True)
    assert capsys.readouterr().err.splitlines() == [
        "loading cats, dogs",
        "stopping: requests under way may finish; Ctrl-C again hurries",
        "hurrying",
        "stopped",
    ]


def test_a_reason_is_told_once_and_again_when_it_changes_or_comes_back(capsys):
    view = view_of("cats")
    for reason in ("no weights", "no weights", "bad weights"):
        report(view, "cats", "failing", reason=reason)
    report(view, "cats", "ready")
    report(view, "cats", "failing", reason="bad weights")
    assert capsys.readouterr().err.splitlines() == [
        "cats cannot serve and is tried again within 60 s: no weights",
        "cats cannot serve and is tried again within 60 s: bad weights",
        "cats cannot serve and is tried again within 60 s: bad weights",
    ]


def test_the_time_within_which_it_is_tried_again_holds_after_any_number_of_failures():
    pauses = [before_next_load(failures, luck=0.999, held=1e6) for failures in range(1, 100)]
    assert max(pauses) <= 60.0


def test_a_reason_that_stays_is_repeated_without_its_traceback_ever_more_rarely(capsys):
    clock = Clock()
    view = view_of("cats", clock=clock)
    told_at = []
    for clock.now in range(0, 1800, 5):
        report(view, "cats", "failing", reason="no weights\nTraceback: light.py, line 3")
        if told := capsys.readouterr().err:
            told_at.append(clock.now)
            last = told
    assert told_at == [0, 30, 90, 210, 450, 750, 1050, 1350, 1650]
    assert last == "cats still cannot serve after 28 min and is tried again within 60 s: no weights\n"


def test_a_wait_for_memory_between_two_tries_does_not_make_the_reason_new(capsys):
    view = view_of("cats", as_json=True)
    for _ in range(3):
        report(view, "cats", "failing", reason="no weights")
        report(view, "cats", "loading", reason="no room")
    assert capsys.readouterr().err.count("no weights") == 1


def test_repeating_a_reason_is_no_event_for_programs(capsys):
    clock = Clock()
    view = view_of("cats", as_json=True, clock=clock)
    for clock.now in (0, 60, 600):
        report(view, "cats", "failing", reason="no weights")
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 1
    assert len(told.err.splitlines()) == 3


@pytest.mark.parametrize(
    ("device", "is_shown"), [("host:8GiB", True), ("cuda:1", True), ("auto", False), ("none", False)]
)
def test_who_serves_a_model_on_a_device_is_told_how_to_see_who_has_what(capsys, device, is_shown):
    view = view_of("cats", models={"cats": ModelSettings(device=device), "idle": ModelSettings(device="host:1GiB")})
    make_ready(view)
    shown = capsys.readouterr().out
    assert ("\n\ndumbwaiter devices shows who has what.\nCtrl-C stops it.\n" in shown) is is_shown


def test_why_a_model_waits_for_memory_is_told_once_for_each_start(capsys):
    view = view_of("cats")
    for reason in ("", "cats waits for 3.00 GiB", "\x1b[2Jcats waits for 2.00 GiB"):
        report(view, "cats", "loading", reason=reason)
    view.started(view.children[1])
    report(view, "cats", "loading", reason="\x1b[2Jagain")
    assert capsys.readouterr().err.splitlines() == ["cats waits: cats waits for 3.00 GiB", r"cats waits: \x1b[2Jagain"]


def test_on_a_terminal_the_progress_line_tells_loading_from_waiting_for_memory(capsys, monkeypatch):
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm-256color"), ("COLUMNS", "150")):
        monkeypatch.setenv(name, value)  # with FORCE_COLOR whatever it writes to is a terminal
    for reason, words in (("", "cats is loading"), ("no room", "cats waits for memory")):
        with view_of("cats") as view:
            report(view, "cats", "loading", reason=reason)
        shown = capsys.readouterr().err
        assert words in shown
        assert "no room" not in shown


def test_for_programs_a_wait_for_memory_is_its_event_alone(capsys):
    report(view_of("cats", as_json=True), "cats", "loading", reason="no room")
    told = capsys.readouterr()
    assert json.loads(told.out) == {"event": "state", "name": "cats", "state": "loading", "reason": "no room"}
    assert told.err == ""


def test_deaths_are_told_with_what_follows(capsys):
    view = view_of("cats")
    view.died(view.children[1], "was killed by SIGKILL", 0.5)
    view.died(view.children[1], "exited with code 2", None)
    assert capsys.readouterr().err.splitlines() == [
        "cats was killed by SIGKILL; starting it again in 500 ms",
        "cats exited with code 2; giving up",
    ]


@pytest.mark.parametrize(("log_format", "line"), [("auto", "cats | [b]said[/b]"), ("json", "[b]said[/b]")])
def test_what_a_process_says_is_passed_on_as_it_is_with_its_name_unless_it_speaks_json(capsys, log_format, line):
    view = view_of("cats", log_format=log_format)
    view.said(view.children[1], "[b]said[/b]")
    assert capsys.readouterr().err == f"{line}\n"


def test_for_programs_each_event_is_one_line_of_json(capsys):
    with view_of("cats", as_json=True) as view:
        cats = view.children[1]
        view.started(cats)
        report(view, "cats", "starting")
        report(view, "cats", "failing", reason="no weights")
        report(view, "cats", "failing", reason="no weights")
        view.died(cats, "exited with code 1", 0.5)
        make_ready(view)
        view.stopping(hurry=False)
    *told, ready, stopping, stopped = events(capsys)
    assert told == [
        {"event": "started", "name": "cats", "pid": None},
        {"event": "state", "name": "cats", "state": "failing", "reason": "no weights"},
        {"event": "died", "name": "cats", "reason": "exited with code 1", "restart_in": 0.5},
        {"event": "state", "name": "gateway", "state": "ready", "reason": ""},
        {"event": "state", "name": "cats", "state": "ready", "reason": ""},
        {"event": "state", "name": "courier", "state": "ready", "reason": ""},
    ]
    assert (ready["event"], ready["gateway"], ready["broker"]) == ("ready", "http://127.0.0.1:8080", "sqlite:/q.db")
    assert set(ready["models"]["cats"]) == {"target", "url", "curl", "signature"}
    assert (stopping, stopped) == ({"event": "stopping", "hurry": False}, {"event": "stopped"})


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ([], "YOUR.jpg"),
        (["examples/cat.jpg"], "examples/cat.jpg"),
        (["examples/cat.jpg", "cat.jpg"], "cat.jpg"),
    ],
)
def test_the_picture_to_try_is_one_that_is_there(capsys, tmp_path, monkeypatch, there, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    for name in there:
        (tmp_path / name).touch()
    for as_json in (False, True):
        view = view_of("cats", as_json=as_json)
        report(view, "gateway", "ready", address="http://h:1")
        report(view, "courier", "ready")
        report(view, "cats", "ready", signature={"input": {"kind": "image"}})
        assert f"curl --data-binary @{named} -H 'Content-Type: image/jpeg' http://h:1/" in capsys.readouterr().out


@pytest.mark.anyio
@pytest.mark.parametrize("broker", ["sqlite:queue.db", "memory:"])
async def test_on_a_terminal_progress_shows_then_the_addresses_and_ctrl_c_ends_it_all(project, broker):
    arguments = ("serve", "light:Picky", "light:Shout", "--port", "0", "--broker", broker)
    terminal = Terminal(project, *arguments, COLUMNS="150")
    try:
        await eventually(lambda: "picky fails and tries again" in terminal.shown, within=30.0)
        await eventually(lambda: "dumbwaiter serves what it can; picky cannot be loaded\n" in terminal.shown)
        assert "/v1/models/shout/predictions" in terminal.shown, "what works can be used"
        assert "/v1/models/picky/predictions" not in terminal.shown
        (project / "weights").touch()
        await eventually(lambda: "dumbwaiter is ready after" in terminal.shown, within=30.0)
        await eventually(lambda: "/v1/models/picky/predictions" in terminal.shown)
        assert terminal.shown.count("/v1/models/shout/predictions") == 1, "it is known already"
        assert "\x1b[?25h" in terminal.shown, "the cursor is back"
        terminal.type("\x03")
        await eventually(lambda: "stopping: requests under way may finish" in terminal.shown, within=20.0)
    finally:
        code = terminal.finish()
    assert code == 0
    assert terminal.shown.endswith("stopped\n")


SCALED = Scaled(model="cats", before=1, after=4, why="backlog", work=25.3, offered=0.5512)


def test_a_change_of_the_number_of_workers_is_told_with_its_reason(capsys):
    with view_of("cats") as view:
        view.scaled(SCALED)
    assert "cats: 1 -> 4 workers (backlog; work 25.3 s, load 0.551)\n" in capsys.readouterr().err


def test_programs_get_it_as_numbers_and_hear_when_one_has_left(capsys):
    with view_of("cats", as_json=True) as view:
        view.scaled(SCALED)
        view.left(view.children[1])
    assert events(capsys)[:2] == [
        {"event": "scaled", "model": "cats", "from": 1, "to": 4, "why": "backlog", "work": 25.3, "offered": 0.5512},
        {"event": "left", "name": "cats"},
    ]


def test_one_that_left_is_not_waited_for(capsys):
    with view_of("cats", "dogs") as view:
        make_ready(view, "dogs")
        assert capsys.readouterr().out == ""
        leave(view, "dogs")
        shown = capsys.readouterr().out
        assert shown.startswith("dumbwaiter is ready after ")
        assert "  dogs         has no worker until work waits\n" in shown


def test_a_model_that_failed_and_has_left_is_not_ready(capsys):
    with view_of("cats", "dogs") as view:
        report(view, "dogs", "failing", reason="no weights")
        make_ready(view, "dogs")
        assert capsys.readouterr().out.startswith("dumbwaiter serves what it can; dogs cannot be loaded\n\n  gateway ")
        report(view, "dogs", "draining")
        leave(view, "dogs")
        shown = capsys.readouterr()
        assert shown.out == "", "it was told what can be used"
        assert shown.err == "dogs is tried again when work waits for it\n"


def test_what_can_be_used_is_told_also_where_the_one_that_failed_left_before(capsys):
    with view_of("cats", "dogs") as view:
        report(view, "dogs", "failing", reason="no weights")
        leave(view, "dogs")
        make_ready(view)
    shown = capsys.readouterr().out
    assert shown.startswith("dumbwaiter serves what it can; dogs cannot be loaded\n")
    assert "/v1/models/cats/predictions\n" in shown
    assert "  dogs " not in shown


def test_one_that_failed_first_and_was_ready_then_may_leave(capsys):
    with view_of("cats", "dogs") as view:
        report(view, "dogs", "failing", reason="no weights")
        report(view, "dogs", "ready", signature=TEXT)
        leave(view, "dogs")
        make_ready(view)
    shown = capsys.readouterr()
    assert shown.out.startswith("dumbwaiter is ready after ")
    assert "/v1/models/dogs/predictions\n" in shown.out
    assert "when work waits" not in shown.err


def test_once_the_last_one_is_ready_only_what_is_new_is_told(capsys):
    clock = Clock()
    with view_of("cats", "dogs", clock=clock) as view:
        report(view, "dogs", "failing", reason="no weights")
        make_ready(view, "dogs")
        leave(view, "cats")
        capsys.readouterr()
        clock.now = 12.5
        report(view, "dogs", "ready", signature=TEXT)
        report(view, "dogs", "ready", signature=TEXT)
    assert capsys.readouterr().out == (
        "dumbwaiter is ready after 12.5 s\n\n  dogs         light:Dogs in /project\n\nTry it:\n"
        "  curl --data-binary 'some text' -H 'Content-Type: text/plain'"
        " http://127.0.0.1:8080/v1/models/dogs/predictions\n"
    )


def test_a_second_worker_that_failed_and_has_left_keeps_nothing_from_being_ready(capsys):
    with view_of("cats") as view:
        view.children.append(Child(Plan("cats-2", "cats", ())))
        report(view, "cats-2", "failing", reason="no weights")
        make_ready(view, "cats-2")
        leave(view, "cats-2")
    shown = capsys.readouterr()
    assert shown.out.startswith("dumbwaiter serves what it can; cats-2 cannot be loaded\n")
    assert shown.out.endswith("Ctrl-C stops it.\ndumbwaiter is ready after 0 ms\n")
    assert "when work waits" not in shown.err


def test_programs_hear_that_it_is_ready_when_each_model_was_and_get_them_all(capsys):
    with view_of("cats", "dogs", as_json=True) as view:
        report(view, "dogs", "failing", reason="no weights")
        make_ready(view, "dogs")
        leave(view, "dogs")
        assert "ready" not in [one["event"] for one in events(capsys)]
        view.children.append(Child(Plan("dogs", "dogs", ())))
        leave(view, "cats")
        report(view, "dogs", "ready", signature=TEXT)
    (ready,) = [one for one in events(capsys) if one["event"] == "ready"]
    assert set(ready["models"]) == {"cats", "dogs"}


def test_a_model_whose_worker_died_and_left_is_not_ready(capsys):
    with view_of("cats", "dogs") as view:
        make_ready(view, "dogs")
        view.died(view.children[2], "was killed by SIGKILL", 0.5)
        leave(view, "dogs")
    assert capsys.readouterr().out.startswith("dumbwaiter serves what it can; dogs cannot be loaded\n")
