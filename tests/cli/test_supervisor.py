"""What dies is started again and answers again; what cannot start says why."""

from __future__ import annotations

import asyncio
import os
import signal

import psutil
import pytest
from supervising import Listener, named, worker

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.cli import turns
from dumbwaiter.cli.supervisor import Plan, Supervisor
from dumbwaiter.config import Settings, load_settings
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from processes import family, gone, make_project, starting

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """One `serve` whose processes are killed by one test after the other; each waits until it answers again."""
    with starting(make_project(tmp_path_factory.mktemp("victim"))) as start:
        yield start("light:Shout").ready()


@pytest.mark.parametrize("name", ["gateway", "shout", "courier"])
def test_a_killed_process_is_started_again_and_answers_again(victim, name):
    os.kill(victim.pids[name], signal.SIGKILL)
    death = victim.event("died", name=name)
    assert (death["reason"], death["restart_in"]) == ("was killed by SIGKILL", 0.5)
    victim.pids[name] = victim.event("started", name=name)["pid"]
    victim.event("state", name=name, state="ready")
    answer = victim.predict("shout", "again")
    assert (answer.status_code, answer.json()["output"]) == (200, "AGAIN")
    assert f"{name} was killed by SIGKILL; starting it again in 500 ms" in victim.log_file.read_text()


async def test_a_killed_runner_is_started_again_by_its_worker_which_lives_on(victim):
    runners = psutil.Process(victim.pids["shout"]).children(recursive=True)
    assert runners
    for runner in runners:
        runner.kill()
    await gone(runners)
    victim.event("state", name="shout", state="ready")
    assert victim.predict("shout", "again").json()["output"] == "AGAIN"
    assert psutil.pid_exists(victim.pids["shout"])


async def test_when_serve_itself_is_killed_its_processes_end_by_themselves(serve):
    serving = serve("light:Shout").ready()
    everyone = family(serving)
    assert len(everyone) >= 5, "serve, gateway, courier, worker and runner"
    serving.process.kill()
    serving.process.wait()
    await gone(everyone)


async def test_a_constructor_that_raises_is_told_to_all_and_recovers_once_the_cause_is_gone(serve, project):
    serving = serve("light:Picky", "light:Shout")
    failing = serving.event("state", name="picky", state="failing")
    assert failing["reason"].startswith("cannot load 'light:Picky': Picky() raised RuntimeError: no weights in this ")
    assert 'raise RuntimeError("no weights in this house")' in failing["reason"], "and where it happened"
    await eventually((project / "tries").exists, within=20.0)
    await eventually(lambda: (project / "tries").stat().st_size >= 2, within=20.0, what="a second try")
    told = serving.log_file.read_text().splitlines()
    headlines = [line for line in told if "cannot load 'light:Picky': Picky() raised RuntimeError" in line]
    assert len(headlines) == 1, "neither the log nor a second try says it again"
    assert headlines[0].startswith("picky cannot serve and is tried again within 60 s: cannot load 'light:Picky'")

    serving.gateway = address_of(serving)
    answer = serving.predict("picky", "abc")
    assert answer.status_code == 503
    assert "Picky() raised RuntimeError: no weights in this house" in answer.json()["detail"]
    assert "Traceback" not in answer.text, "the caller need not know our code"

    (project / "weights").touch()
    serving.ready()
    answer = await eventually(lambda: served_by(serving, "picky"), within=20.0, every=0.1)
    assert answer.json()["output"] == "Abc"


def address_of(serving):
    """The gateway's address before all is ready: from its log line."""
    return serving.log_file.read_text().partition("gateway listens on ")[2].partition("\n")[0]


def served_by(serving, model):
    """The answer, once the gateway has seen that the model works."""
    answer = serving.predict(model, "abc")
    return answer if answer.status_code == 200 else None


def test_a_class_that_does_not_import_is_told_with_what_there_is(serve, project):
    (project / "faulty.py").write_text("import no_such_module\n")
    serving = serve("light:Shot", "faulty:Infer")
    assert serving.event("state", name="shot", state="failing")["reason"].startswith(
        "cannot load 'light:Shot': no class 'Shot' in light; it has Add, Picky, Shout, Slow; did you mean 'Shout'?"
    )
    serving = serve("faulty:Infer")
    assert serving.event("state", name="infer", state="failing")["reason"].startswith(
        "cannot load 'faulty:Infer': it imports 'no_such_module', which is not installed here"
    )
    assert serving.stop() == 0, "it can be stopped also while a model does not load"


async def test_a_process_that_wrong_usage_ends_is_given_up_on_and_ends_all(project, monkeypatch):
    monkeypatch.chdir(project)
    listener = Listener()
    plans = [
        Plan("wrong", None, ["gateway", "--no-such-option"], role="gateway"),
        Plan("right", "shout", ["worker", "light:Shout"]),
    ]
    assert await Supervisor(plans, listener, Settings()).run() == 1
    assert listener.deaths == [("wrong", "exited with code 2", None)]
    assert "dumbwaiter: error: no such option '--no-such-option'; see: dumbwaiter gateway --help" in listener.lines


async def test_what_a_process_said_before_a_report_is_passed_on_before_it(project, monkeypatch):
    monkeypatch.chdir(project)
    listener = Listener()
    names = ["one", "two", "three"]
    supervisor = Supervisor([Plan(n, n, ["worker", f"{n}=light:Shout"]) for n in names], listener, Settings())
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: listener.said_when_ready.keys() >= set(names), within=30.0)
    supervisor.stop.set()
    assert await running == 0
    for name in names:
        assert [line for line in listener.said_when_ready[name] if f"model {name} is ready" in line], name


async def test_no_more_start_at_once_than_there_are_cores(project, monkeypatch):
    """And one that is retired before its turn has come is never started."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(turns, "cores", lambda: 1)
    monkeypatch.setattr(turns, "LONGEST", 60.0)

    class Counting(Listener):
        at_once, began = 0, ()

        def started(self, child):
            self.began += (child.plan.name,)
            starting = [one for one in supervisor.children if one.process and one.report.state == "starting"]
            self.at_once = max(self.at_once, len(starting))

    listener = Counting()
    supervisor = Supervisor([worker(name) for name in ("one", "two", "three", "never")], listener, Settings())
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: listener.began)
    supervisor.retire(named(supervisor, "never"))
    await eventually(lambda: listener.gone == ["never"])
    assert len(listener.began) < 3, "it leaves at once, whosever turn it is"
    await eventually(lambda: listener.said_when_ready.keys() >= {"one", "two", "three"}, within=30.0)
    assert (listener.at_once, listener.began) == (1, ("one", "two", "three"))
    supervisor.stop.set()
    assert await running == 0


async def test_a_gateway_starts_whosever_turn_it_is_and_who_waits_for_one_hears_the_end(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(turns, "cores", lambda: 1)
    monkeypatch.setattr(turns, "LONGEST", 60.0)
    silent = Plan("silent", "slow", ["--help"], comes_and_goes=True)
    listener, settings = Listener(), load_settings(None, environ={})
    supervisor = Supervisor([], listener, settings)
    await supervisor._turns.take("somebody else")
    running = asyncio.create_task(supervisor.run())
    supervisor.add(silent)
    supervisor.add(Plan("gateway", None, ["gateway", "--port", "0"], role="gateway"))
    await eventually(lambda: "gateway" in listener.said_when_ready, within=30.0)
    assert named(supervisor, "silent").process is None
    supervisor.stop.set()
    async with asyncio.timeout(10.0):
        assert await running == 0
    assert listener.deaths == []


async def test_a_worker_that_hangs_before_it_has_said_anything_is_killed_and_started_again(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr("dumbwaiter.cli.supervisor._MUTE_FOR", 8.0)

    class Stopping(Listener):
        stopped = False

        def started(self, child):
            if not self.stopped:
                child.signal(signal.SIGSTOP)
                self.stopped = True

    listener = Stopping()
    supervisor = Supervisor([worker("one")], listener, Settings())
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: "one" in listener.said_when_ready, within=30.0)
    ((name, why, _),) = listener.deaths
    assert (name, why) == ("one", "said nothing in the 60 s after its start, as one that hangs, and was killed")
    await asyncio.sleep(8.0)
    assert len(listener.deaths) == 1, "nor is one killed that has said how it is"
    supervisor.stop.set()
    assert await running == 0


async def test_lines_of_any_length_are_passed_on(project, monkeypatch):
    monkeypatch.chdir(project)
    listener = Listener()
    option = "--" + "x" * 100_000
    assert await Supervisor([Plan("wordy", None, ["gateway", option], role="gateway")], listener, Settings()).run() == 1
    assert listener.lines == [f"dumbwaiter: error: no such option '{option}'; see: dumbwaiter gateway --help"]


async def settled(store, id_):
    from dumbwaiter.blobs.results import load_result
    from dumbwaiter.errors import BlobNotFoundError

    try:
        return await load_result(store, id_)
    except BlobNotFoundError:
        return None


async def test_workers_come_and_go_while_it_runs_and_a_batch_is_never_interrupted(project, monkeypatch):
    monkeypatch.chdir(project)
    listener, settings = Listener(), load_settings(None, environ={})
    supervisor = Supervisor([worker("one", "--grace", "500ms")], listener, settings)
    running = asyncio.create_task(supervisor.run())
    supervisor.add(worker("two"))
    await eventually(lambda: listener.said_when_ready.keys() >= {"one", "two"}, within=30.0)
    supervisor.retire(named(supervisor, "two"))
    await eventually(lambda: listener.gone == ["two"], within=20.0)
    async with open_broker(settings.broker) as broker:
        await broker.send("slow", [Message(id="long", body=b"2", content_type="text/plain")])
        await eventually((project / "slow.started").exists, within=20.0)
        supervisor.retire(named(supervisor, "one"))
        supervisor.retire(named(supervisor, "one"))
        answer = await eventually(lambda: settled(open_store(settings.blobs), "long"), within=20.0)
        assert answer.body == b"2"
    await eventually(lambda: listener.gone == ["two", "one"], within=20.0)
    assert (supervisor.children, listener.deaths) == ([], [])
    assert not running.done(), "without any child it goes on: the next one may come"
    supervisor.stop.set()
    assert await running == 0
    supervisor.add(worker("late"))
    assert supervisor.children == []


async def test_one_that_is_retired_before_it_has_said_anything_ends_too(project, monkeypatch):
    monkeypatch.chdir(project)
    listener = Listener()
    supervisor = Supervisor([], listener, Settings())
    running = asyncio.create_task(supervisor.run())
    supervisor.add(worker("one"))
    supervisor.retire(named(supervisor, "one"))
    await eventually(lambda: listener.gone == ["one"], within=20.0)
    supervisor.add(worker("two"))
    await eventually(lambda: named(supervisor, "two").process, within=20.0)
    supervisor.retire(named(supervisor, "two"))
    await eventually(lambda: listener.gone == ["one", "two"], within=20.0)
    assert listener.deaths == []
    supervisor.stop.set()
    assert await running == 0


async def test_one_that_comes_and_goes_is_started_again_ever_more_slowly_and_ends_nobody_else(project, monkeypatch):
    """Also when its settings are wrong, which somebody may have written while it ran."""
    monkeypatch.chdir(project)
    listener = Listener()
    plan = Plan("wrong", "slow", ["worker", "--no-such-option"], comes_and_goes=True)
    supervisor = Supervisor([plan], listener, Settings())
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: len(listener.deaths) == 3, within=30.0)
    assert listener.deaths == [("wrong", "exited with code 2", delay) for delay in (0.5, 1.0, 2.0)]
    (child,) = supervisor.children
    assert child.last_words == "exited with code 2"
    supervisor.retire(child)
    await eventually(lambda: listener.gone == ["wrong"], within=1.5, what="its end, before its next start")
    assert len(listener.deaths) == 3
    supervisor.stop.set()
    assert await running == 0


async def test_when_all_stop_one_that_retires_gets_the_grace_and_no_more(project, monkeypatch):
    monkeypatch.chdir(project)
    listener, settings = Listener(), load_settings(None, environ={"DUMBWAITER_WORKER__GRACE": "1s"})
    supervisor = Supervisor([worker("one", "--grace", "1")], listener, settings)
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: "one" in listener.said_when_ready, within=30.0)
    async with open_broker(settings.broker) as broker:
        await broker.send("slow", [Message(id="endless", body=b"1000", content_type="text/plain")])
        await eventually((project / "slow.started").exists, within=20.0)
        supervisor.retire(named(supervisor, "one"))
        supervisor.stop.set()
        assert await running == 0
        assert (await broker.stats("slow")).ready == 1, "handed back"


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGTERM])
async def test_one_that_comes_and_goes_and_is_retired_by_hand_has_not_died(project, monkeypatch, how):
    monkeypatch.chdir(project)
    listener = Listener()
    supervisor = Supervisor([worker("one")], listener, Settings())
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: "one" in listener.said_when_ready, within=30.0)
    named(supervisor, "one").signal(how)
    await eventually(lambda: listener.gone == ["one"], within=20.0)
    assert (supervisor.children, listener.deaths) == ([], [])
    supervisor.stop.set()
    assert await running == 0


async def test_one_of_a_fixed_number_that_is_retired_by_hand_is_started_anew(project, monkeypatch):
    monkeypatch.chdir(project)
    listener = Listener()
    supervisor = Supervisor([Plan("one", "slow", ["worker", "slow=light:Slow"])], listener, Settings())
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: "one" in listener.said_when_ready, within=30.0)
    listener.said_when_ready.clear()
    named(supervisor, "one").signal(signal.SIGUSR1)
    await eventually(lambda: "one" in listener.said_when_ready, within=30.0)
    assert listener.deaths == [("one", "exited with code 0", 0.5)]
    supervisor.stop.set()
    assert await running == 0
