"""A store of each kind, empty, and processes that share a folder."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from dumbwaiter.blobs import open_store
from store_servers import SERVER_KINDS

SCRIPT = Path(__file__).with_name("blob_process.py")


#: These run on real servers, too.
CONTRACTS = {"test_acceptances", "test_blob_store", "test_results", "test_streams"}


def pytest_generate_tests(metafunc):
    if "store" in metafunc.fixturenames:
        served = SERVER_KINDS if metafunc.module.__name__ in CONTRACTS else ()
        metafunc.parametrize("store", ["file", "memory", *served], indirect=True)


@pytest.fixture
def store(request, tmp_path, monkeypatch, store_server):
    """An empty store of each kind, the services on real servers."""
    if request.param == "file":
        return open_store(f"file://{tmp_path}/blobs")
    if request.param == "memory":
        return open_store(f"memory:{secrets.token_hex(8)}")
    server = store_server(request.param)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(server.new_url())


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/blobs"


@pytest.fixture
def local(url):
    return open_store(url)


@pytest.fixture
def child():
    """Start blob_process.py; what still runs is killed after the test."""
    children = []

    def start(verb, *arguments):
        command = [sys.executable, str(SCRIPT), verb, *map(str, arguments)]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return children[-1]

    yield start
    for one in children:
        one.kill()
        one.communicate()
