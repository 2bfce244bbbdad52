"""`dumbwaiter serve` as its users meet it: starts, tells, answers, stops."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path

import httpx
import psutil
import pytest

from dumbwaiter.testing import eventually
from processes import family, gone

pytestmark = pytest.mark.anyio


def asking(serving, model, text):
    """A request on its way."""
    return asyncio.create_task(asyncio.to_thread(serving.predict, model, text))


def test_the_ready_event_tells_all_that_a_program_needs(served):
    assert set(served.models) == {"shout", "add"}
    shout = served.models["shout"]
    assert shout["target"] == "light:Shout"
    assert shout["url"] == f"{served.gateway}/v1/models/shout/predictions"
    assert shout["url"] in shout["curl"]
    assert shout["signature"]["input"]["kind"] == "text"
    assert set(served.pids) == {"gateway", "courier", "shout", "add"}
    assert all(psutil.pid_exists(pid) for pid in served.pids.values())


def test_two_models_answer_by_rest(served):
    assert served.predict("shout", "two eggs").json()["output"] == "TWO EGGS"
    with httpx.Client(trust_env=False) as client:
        answer = client.post(served.models["add"]["url"], json={"input": {"a": 1, "b": 2}})
    assert (answer.status_code, answer.json()["output"]) == (200, 3)


def test_a_model_that_is_not_served_is_404_with_the_names_of_those_that_are(served):
    answer = served.predict("shot", "x")
    assert answer.status_code == 404
    assert "known: add, shout" in answer.json()["detail"]


def test_the_state_lies_beside_the_project(served):
    assert (served.project / ".dumbwaiter" / "queue.db").is_file()


def test_two_serve_in_one_project_each_have_a_port_and_share_the_queue(serve):
    first, second = serve("light:Shout").ready(), serve("light:Shout").ready()
    assert first.gateway != second.gateway
    assert first.stop() == 0
    assert second.predict("shout", "still here").json()["output"] == "STILL HERE"


def test_the_models_of_the_settings_are_served_with_their_replicas(serve, project):
    (project / "dumbwaiter.toml").write_text(
        '[models.loud]\ntarget = "light:Shout"\nreplicas = 2\n[models.sum]\ntarget = "light:Add"\n'
    )
    serving = serve().ready()
    assert set(serving.pids) == {"gateway", "courier", "loud", "loud-2", "sum"}
    assert serving.predict("loud", "abc").json()["output"] == "ABC"


def test_a_bare_name_serves_that_model_of_the_settings_alone(serve, project):
    (project / "dumbwaiter.toml").write_text(
        '[models.loud]\ntarget = "light:Shout"\n[models.sum]\ntarget = "light:Add"\n'
    )
    serving = serve("loud").ready()
    assert set(serving.models) == {"loud"}
    assert serving.predict("loud", "abc").json()["output"] == "ABC"


def test_torch_is_loaded_in_the_runner_alone(serve, project):
    (project / "heavy.py").write_text(
        "import torch\nclass Infer:\n    def __call__(self, text: str) -> str:\n        return torch.__name__\n"
    )
    serving = serve("heavy:Infer").ready()
    assert serving.predict("infer", "x").json()["output"] == "torch"
    runners = psutil.Process(serving.pids["infer"]).children(recursive=True)
    pids = [serving.process.pid, *serving.pids.values()]
    assert [pid for pid in pids if maps_torch(pid)] == []
    assert any(maps_torch(runner.pid) for runner in runners)


def maps_torch(pid):
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


async def test_memory_is_one_process_and_leaves_nothing_on_disk(serve, project):
    serving = serve("light:Shout", "--broker", "memory:").ready()
    assert serving.predict("shout", "abc").json()["output"] == "ABC"
    commands = [" ".join(one.cmdline()) for one in family(serving)[1:]]
    assert not [command for command in commands if " gateway " in command or " worker " in command]
    everyone = family(serving)
    assert serving.stop() == 0
    await gone(everyone)
    assert not (project / ".dumbwaiter").exists()


async def test_ctrl_c_lets_a_request_under_way_finish_and_leaves_no_process_behind(serve, project):
    serving = serve("light:Slow").ready()
    everyone = family(serving)
    answer = asking(serving, "slow", "1.0")
    await eventually((project / "slow.started").exists, within=20.0)
    assert await asyncio.to_thread(serving.stop, signal.SIGINT) == 0
    assert (await answer).json()["output"] == "1.0"
    assert serving.event("stopping")["hurry"] is False
    serving.event("stopped")
    await gone(everyone)


async def test_a_second_ctrl_c_hurries_and_what_was_under_way_waits_for_the_next_start(serve, project):
    serving = serve("light:Slow", "--grace", "10m").ready()
    everyone = family(serving)
    answer = asking(serving, "slow", "1000")
    await eventually((project / "slow.started").exists, within=20.0)
    serving.process.send_signal(signal.SIGINT)
    serving.event("stopping", hurry=False)
    assert await asyncio.to_thread(serving.stop, signal.SIGINT) == 0
    await gone(everyone)
    with pytest.raises(httpx.TransportError):
        await answer
    (slow,) = json.loads(serving.run("queues", "--json").stdout)
    assert (slow["ready"], slow["locked"], slow["dead"]) == (1, 0, 0)


@pytest.mark.parametrize("broker", ["memory:", "sqlite:.dumbwaiter/queue.db"])
async def test_ctrl_c_again_and_again_until_it_is_gone_is_no_failure(serve, broker):
    serving = serve("light:Shout", "--broker", broker).ready()
    everyone = family(serving)

    def gone_by_ctrl_c():
        serving.process.send_signal(signal.SIGINT)
        return serving.process.poll() is not None

    await eventually(gone_by_ctrl_c, within=30.0)
    assert serving.process.returncode == 0
    await gone(everyone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_terminal_that_closes_and_a_process_manager_stop_it_just_as_well(serve, number):
    serving = serve("light:Shout").ready()
    everyone = family(serving)
    assert serving.stop(number) == 0
    await gone(everyone)


async def test_a_scaled_model_that_fails_and_leaves_is_not_ready_before_it_can_be_loaded(serve, project):
    scaled = {"DUMBWAITER_SCALING__MAX_REPLICAS": "1", "DUMBWAITER_SCALING__LOOK_EVERY": "1s"}
    serving = serve("light:Shout", "light:Picky", **scaled)
    serving.event("left", name="picky")
    await eventually(lambda: "picky is tried again when work waits for it\n" in serving.log_file.read_text())
    (project / "weights").touch()
    await eventually(lambda: "gateway listens on " in serving.log_file.read_text(), within=20.0)
    serving.gateway = serving.log_file.read_text().partition("gateway listens on ")[2].partition("\n")[0]
    await eventually(lambda: serving.predict("picky", "abc").status_code == 200, within=30.0, every=0.1)
    assert set(serving.ready().models) == {"shout", "picky"}


def test_a_port_in_use_is_said_at_once_and_nothing_is_started(run, project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        shown = run("serve", "light:Shout", "--port", port)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == (
        f"dumbwaiter: error: port {port} on 127.0.0.1 is in use;"
        " choose another with --port N, or any free one with --port 0\n"
    )
    assert not (project / ".dumbwaiter").exists()


def test_a_broker_that_cannot_be_opened_is_said_once_and_nothing_is_started(run):
    shown = run("serve", "light:Shout", "--port", "0", "--broker", "sqlite:/proc/nowhere/queue.db")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == (
        "dumbwaiter: error: cannot use the folder of /proc/nowhere/queue.db: No such file or directory;"
        " choose one that this user may write to\n"
    )


@pytest.mark.parametrize("arguments", [("serve", "infer"), ("serve",), ("worker", "infer")])
@pytest.mark.parametrize("more", ["", 'weights = "w.pt"\n'])
def test_a_model_of_the_settings_without_a_target_is_named_with_its_line(run, project, arguments, more):
    (project / "dumbwaiter.toml").write_text(f"\n[models.infer]\n{more}")
    shown = run(*arguments)
    assert shown.returncode == 2
    assert shown.stderr == (
        f'dumbwaiter: error: {project}/dumbwaiter.toml:2: models.infer has no target; write target = "MODULE:CLASS"\n'
    )


def test_a_model_of_the_variables_without_a_target_is_named(run):
    shown = run("serve", "infer", DUMBWAITER_MODELS__INFER__WEIGHTS="w.pt")
    assert shown.returncode == 2
    assert shown.stderr.startswith("dumbwaiter: error: models.infer has no target; write target = ")


def test_a_model_that_is_not_in_the_settings_is_told_with_the_nearest_one(run, project):
    (project / "dumbwaiter.toml").write_text('[models.infer]\ntarget = "light:Shout"\n')
    shown = run("serve", "infr")
    assert shown.returncode == 2
    assert "no model 'infr' in the settings; did you mean 'infer'?" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "no model to serve; name one, such as: dumbwaiter serve network:Infer"),
        (("loud",), "no model 'loud' in the settings; name it MODULE:CLASS"),
        (("light:Shout", "light.py:Shout"), "two models are named 'shout'; name one of them otherwise: NAME="),
        (
            ("light:Shout", "light:Add", "--weights", "w.pt"),
            "which model has the weights 'w.pt'? write --weights",
        ),
        (
            ("light.py:Shout=loud",),
            "'light.py:Shout=loud': the name comes first; write NAME=MODULE:CLASS, here loud=light.py:Shout",
        ),
        (("nowhere.py:Shout",), "'nowhere.py:Shout': no Python file at "),
    ],
)
def test_a_wrong_command_line_says_what_to_write(run, arguments, complaint):
    shown = run("serve", *arguments)
    assert shown.returncode == 2
    assert complaint in shown.stderr


def test_a_model_of_the_settings_whose_name_cannot_be_a_queue_is_refused(run, project):
    (project / "dumbwaiter.toml").write_text('[models."../x"]\ntarget = "light:Shout"\n')
    shown = run("serve")
    assert shown.returncode == 2
    assert "'../x' cannot name a model: use letters, digits" in shown.stderr


@pytest.mark.parametrize(
    ("settings", "arguments", "complaint"),
    [
        ("", ["--host", "0.0.0.0"], "the gateway would listen on 0.0.0.0, and nobody has an API key: make one with"),
        ("", ["--host", "0.0.0.0", "--broker", "memory:"], "the gateway would listen on 0.0.0.0, and nobody has an"),
        (
            '[outbound]\nallowed_networks = ["10.1.2.3/24"]',
            [],
            "dumbwaiter.toml:2: outbound.allowed_networks: '10.1.2.3/24' is no network; write 10.1.2.0/24",
        ),
        ('[outbound]\nallowed_hosts = ["a b"]', [], "outbound.allowed_hosts: 'a b' is no host"),
        ('[gateway]\nsigning_key = "abc"', [], "dumbwaiter.toml:2: gateway.signing_key: it has 3 bytes; it needs at"),
        ('[gateway]\ncertfile = "no.pem"\nkeyfile = "no.key"', [], "gateway.certfile: cannot read"),
        ('[gateway]\ncertfile = "no.pem"', [], "gateway.keyfile is not set"),
        (
            '[gateway]\ncors_origins = ["app.example.com"]',
            [],
            "dumbwaiter.toml:2: gateway.cors_origins: 'app.example.com'",
        ),
    ],
)
def test_what_keeps_the_gateway_from_starting_is_said_before_a_model_is_loaded(
    run, project, settings, arguments, complaint
):
    (project / "dumbwaiter.toml").write_text(settings)
    shown = run("serve", "light:Picky", "--port", "0", *arguments)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert complaint in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert not (project / "tries").exists()
