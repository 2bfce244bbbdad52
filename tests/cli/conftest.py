"""A project folder with light models, the command line as a real process, and `serve` running in it."""

from __future__ import annotations

import functools

import pytest

from processes import make_project, run_in, starting


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


@pytest.fixture
def run(project):
    """Run one command to its end: run("queues", "--json").returncode / .stdout / .raw / .stderr."""
    return functools.partial(run_in, project)


@pytest.fixture
def serve(project):
    """Start `dumbwaiter serve ARGUMENTS`; whatever a test leaves running is stopped."""
    with starting(project) as start:
        yield start


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One `serve` of Shout and Add that the tests of a module share: they leave its processes alone."""
    with starting(make_project(tmp_path_factory.mktemp("served"))) as start:
        yield start("light:Shout", "light:Add").ready()
