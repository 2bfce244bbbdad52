"""What a running system has logged, planned with as it is."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dumbwaiter.testing import eventually
from processes import environment, make_project, run_in


@contextlib.contextmanager
def serving(project, log):
    """`dumbwaiter serve` of Shout with the settings of the page, and what it writes to stderr in *log*."""
    page = (Path(__file__).parents[2] / "docs" / "plan.md").read_text()
    (project / "dumbwaiter.toml").write_text(
        re.search(r"own log\*\* is a trace.*?```toml\n(.*?)```", page, re.DOTALL)[1]
    )
    command = [sys.executable, "-m", "dumbwaiter", "serve", "light:Shout", "--port", "0"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=project, env=environment(), stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=40)


@pytest.mark.anyio
async def test_what_serve_writes_to_stderr_is_a_trace_as_it_is(tmp_path):
    project, log = make_project(tmp_path), tmp_path / "requests"
    with serving(project, log):
        await eventually(lambda: "model shout is ready" in log.read_text(), within=30.0)
        listens = re.compile(r"gateway listens on (http://[^\"]+)")
        gateway = (await eventually(lambda: listens.search(log.read_text()), within=30.0))[1]
        async with httpx.AsyncClient(trust_env=False, timeout=20.0) as client:
            for text in ("one", "two", "three"):
                await client.post(f"{gateway}/v1/models/shout/predictions", content=text)
    assert log.read_text().startswith("loading shout\n"), "plain lines are among it"
    ran = run_in(project, "plan", "requests", "--service", "50ms", "--signal", "age", "--json")
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert (said["trace"], said["requests"]) == ("shout", 3)
    assert re.match(r"requests: .* no JSON object.*; passed over$", said["warnings"][0])
    assert f"warning: {said['warnings'][0]}\n" in ran.stderr
