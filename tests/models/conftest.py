"""A project folder for each test, and Python's import state as it was afterwards."""

from __future__ import annotations

import sys
import textwrap

import pytest

from dumbwaiter.models.contract import LoadedModel, ModelSpec
from dumbwaiter.models.loading import load_model


@pytest.fixture(autouse=True)
def _every_test(imports_are_forgotten):
    """Each of these tests imports a user's modules into this process."""


@pytest.fixture
def project(tmp_path):
    """Writes network.py into the project folder and returns the folder."""

    def write(code):
        sys.modules.pop("network", None)
        (tmp_path / "network.py").write_text(textwrap.dedent(code))
        return tmp_path

    return write


@pytest.fixture
def serve(project):
    """Loads class Model (or another) of *code*, as the runner does."""

    def load(code, name="Model", **spec) -> LoadedModel:
        return load_model(ModelSpec(name="dish", target=f"network:{name}", project=str(project(code)), **spec))

    return load
