"""The package as it is imported: light, typed, and complete."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.resources import files

import pytest

import dumbwaiter

HEAVY = {"torch", "numpy", "PIL", "rich", "click", "uvicorn", "starlette", "obstore", "apsw", "uvloop", "httptools"}


def loaded_by(code):
    """The top-level modules that a fresh interpreter has loaded after *code*."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        check=True,
        text=True,
        timeout=50,
    )
    return {name.partition(".")[0] for name in json.loads(shown.stdout)}


@pytest.mark.parametrize("code", ["import dumbwaiter", "import dumbwaiter.message", "import dumbwaiter.errors"])
def test_importing_it_loads_no_library_that_is_slow_or_may_be_missing(code):
    loaded = loaded_by(code)
    assert "dumbwaiter" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("name", ["BadInputError", "TransientError", "PermanentError"])
def test_a_model_that_raises_our_errors_loads_nothing_else(name):
    assert not loaded_by(f"from dumbwaiter import {name}") & (HEAVY | {"asyncio"})


def test_the_help_loads_no_command():
    code = (
        "import contextlib, io\n"
        "from dumbwaiter.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['--help'])"
    )
    assert not loaded_by(code) & (HEAVY - {"click"})


def test_neither_gateway_nor_consumer_loads_what_only_the_model_needs():
    """All that a worker's and a gateway's main process import, broker and store included; the model is the runner's."""
    code = (
        "import dumbwaiter.worker.run, dumbwaiter.gateway, dumbwaiter.cli.runtimes, dumbwaiter.client\n"
        "from dumbwaiter.brokers import open_broker\n"
        "from dumbwaiter.blobs import open_store\n"
        "open_broker('sqlite:/nowhere/q.db'), open_store('file:///nowhere')"
    )
    assert not loaded_by(code) & {"torch", "numpy", "PIL", "safetensors", "pydantic"}


def test_a_runner_loads_nothing_of_the_consumers_side():
    loaded = loaded_by("import dumbwaiter.worker.runner")
    assert not loaded & {"httpx", "anyio", "obstore", "rich", "click", "torch", "numpy", "PIL"}


@pytest.mark.parametrize("name", dumbwaiter.__all__)
def test_every_public_name_resolves(name):
    assert getattr(dumbwaiter, name) is not None
    assert name in dir(dumbwaiter)


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="module 'dumbwaiter' has no attribute 'Clint'"):
        _ = dumbwaiter.Clint


def test_every_public_name_has_a_home_and_types_for_the_type_checker():
    for name, home in dumbwaiter._HOMES.items():
        assert hasattr(importlib.import_module(home), name)
    assert set(dumbwaiter.__all__) == {*dumbwaiter._HOMES, "__version__"}
    assert files("dumbwaiter").joinpath("py.typed").is_file()


def test_it_runs_as_a_module():
    shown = subprocess.run(
        [sys.executable, "-m", "dumbwaiter", "version"], capture_output=True, check=False, text=True, timeout=50
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"dumbwaiter {dumbwaiter.__version__} (Python ")
