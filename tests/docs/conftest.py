"""A reader of the documentation, in an empty folder."""

from __future__ import annotations

import shutil

import pytest
from sessions import Reader


@pytest.fixture
def reader(tmp_path):
    assert shutil.which("curl"), "the pages use curl; install it: apt-get install curl"
    folder = tmp_path / "try-it"
    folder.mkdir()
    reader = Reader(folder)
    yield reader
    reader.stop()
