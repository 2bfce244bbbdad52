"""`make demo BROKER=...`: the same demo over a real server, which it starts and stops itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dumbwaiter.testing.servers import SERVERS
from processes import environment

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def demo(*arguments, **variables):
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def servers_in(folder):
    """Processes that were started for a demo whose temporary folder lies there."""
    return [
        one for one in psutil.process_iter(["cmdline"]) if any(folder in part for part in one.info["cmdline"] or ())
    ]


@pytest.mark.trial
@pytest.mark.timeout(120)
@pytest.mark.parametrize("broker", SERVERS)
def test_it_runs_over_a_server_that_is_gone_afterwards(broker, tmp_path):
    SERVERS[broker](tmp_path.with_name("never-started"))  # where it is missing, this is skipped
    done = demo("--broker", broker, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every photograph was recognised through both doors" in done.stdout
    scheme = {"rabbitmq": "amqp", "valkey": "redis"}.get(broker, broker)
    assert f"{scheme}://" in done.stdout
    assert servers_in(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == [], "it leaves no folder"


def test_without_the_server_it_says_in_one_line_what_to_install(tmp_path):
    done = demo("--broker", "redis", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == ("the demo cannot run on redis: redis-server is missing: apt-get install redis-server\n")
