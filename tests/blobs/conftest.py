"""The stores that need no server, each empty, and processes that share a folder."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from dumbwaiter.blobs import open_store

SCRIPT = Path(__file__).with_name("blob_process.py")


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    """A store of each kind."""
    return open_store(f"file://{tmp_path}/blobs" if request.param == "file" else f"memory:{secrets.token_hex(8)}")


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
