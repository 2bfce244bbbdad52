"""Commands whose blob store names a bucket that is not there: each says so, in one line, and none seems to succeed."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.brokers import open_broker

URL = "s3://kichen-that-nobody-made/p"
THERE_IS_NONE = f"{URL}: there is no such bucket (NoSuchBucket); make it, or mend its name\n"


@pytest.fixture
def run_there(run, store_server):
    """Run one command with that bucket."""
    server = store_server("seaweedfs")
    return lambda *arguments: run(*arguments, "--blobs", URL, **server.environment)


@pytest.mark.parametrize(
    "arguments",
    [("serve", "light:Picky", "--port", "0"), ("gateway", "--port", "0"), ("worker", "light:Picky"), ("courier",)],
)
def test_whoever_serves_ends_at_once(run_there, project, arguments):
    shown = run_there(*arguments)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == f"dumbwaiter: error: cannot use the blob store {THERE_IS_NONE}"
    assert not (project / "tries").exists()


async def make_broker(project):
    async with open_broker(f"sqlite:{project}/.dumbwaiter/queue.db"):
        pass


@pytest.mark.parametrize("wait", [(), ("--wait", "30s")])
def test_a_result_is_not_said_to_wait_still(run_there, project, wait):
    asyncio.run(make_broker(project))
    shown = run_there("result", "abc", *wait)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == f"dumbwaiter: error: cannot read blob 'results/abc' in {THERE_IS_NONE}"


def test_a_request_whose_result_could_not_be_kept_is_not_handed_in(served, store_server):
    variables = store_server("seaweedfs").environment
    shown = served.run("submit", "shout", "--no-wait", "hello", "--blobs", URL, **variables)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == f"dumbwaiter: error: cannot use the blob store {THERE_IS_NONE}"
