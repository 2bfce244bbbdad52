"""Fixtures that every test may use, and what a skip means where everything must be there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator

import pytest
from hypothesis import settings

from dumbwaiter.testing.servers import MissingServerError
from store_servers import SERVERS, StoreServer

# The first example of a test pays for imports, and the machine may be busy with something else.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A shell starts what runs in the background with SIGINT ignored, and so would be all processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: A rule that an adapter's declared capabilities switch off is no gap of the machine's, nor is a server that no package
#: index has.
BY_DESIGN = "RULE NOT CHECKED"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[[str], StoreServer], None, None]:
    """The running object store of a name in SERVERS: one for all tests of a process. A test that stops it starts it."""
    running: dict[str, StoreServer] = {}

    def started(name: str) -> StoreServer:
        if name not in running:
            server = SERVERS[name](tmp_path_factory.mktemp(name))
            running[name] = server
            server.start()
        return running[name]

    yield started
    for server in running.values():
        server.stop()


@pytest.fixture
def imports_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> Generator[None, None, None]:
    """For a test that loads a model into this process: the next one finds Python's import state as it was."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file rewritten within a second looks unchanged
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"network", "kitchen_models"}:
            del sys.modules[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    """A server that is not on this machine skips the tests that start it."""
    yield from _without_what_is_missing()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """So does one that the test itself starts."""
    yield from _without_what_is_missing()


def _without_what_is_missing() -> Generator[None, None, None]:
    try:
        yield
    except MissingServerError as error:
        pytest.skip(str(error) if error.is_in_an_index else f"{BY_DESIGN}: {error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With TESTS_REQUIRE_ALL, as in continuous integration, a test skipped for want of something fails."""
    report = yield
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    if is_skip and os.environ.get("TESTS_REQUIRE_ALL") and BY_DESIGN not in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but TESTS_REQUIRE_ALL is set: {report.longrepr}"
    return report
