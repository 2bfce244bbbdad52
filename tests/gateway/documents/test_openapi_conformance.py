"""Whether the gateway does what its OpenAPI document says: schemathesis asks thousands of things of real workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processes import starting

pytestmark = [pytest.mark.trial, pytest.mark.timeout(120)]

SECONDS = 25
#: 504 is what a caller gets whose own deadline is over.
CONFIGURATION = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
"""
#: No URL that schemathesis makes up is to be reached.
SETTINGS = """
[outbound]
allowed_hosts = ["nowhere.invalid"]
"""
#: A schema cannot say all that a model wants of a picture, nor forbid headers that nobody knows. Below /v2 everything
#: that is not served is answered as the inference protocol answers it: 404.
NOT_CHECKED = "positive_data_acceptance,negative_data_rejection,unsupported_method"


def test_answers_are_those_of_the_document_and_nothing_that_is_sent_makes_it_fail(tmp_path):
    shutil.copy(Path(__file__).with_name("tried_models.py"), tmp_path / "tried.py")
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    (tmp_path / "dumbwaiter.toml").write_text(SETTINGS)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"]
    command += ["--max-time", str(SECONDS), "--max-examples", "30", "--workers", "1", "--request-timeout", "15"]
    command += ["--phases", "coverage,fuzzing,stateful", "--exclude-checks", NOT_CHECKED, "--no-shrink", "--no-color"]
    command += ["--seed", "1"]
    with starting(tmp_path) as start:
        service = start(*(f"tried.py:{name}" for name in ("Grey", "Colours", "Scale", "Say", "Echo", "Add"))).ready()
        known = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")}
        done = subprocess.run(
            [*command, f"{service.gateway}/openapi.json"],
            cwd=tmp_path,
            env=known,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        assert service.process.poll() is None
