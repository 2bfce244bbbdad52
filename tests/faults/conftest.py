"""A node for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    it = Node(tmp_path)
    yield it
    it.close()
