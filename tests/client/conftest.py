"""A running service over each broker, with a blob store beside it."""

from __future__ import annotations

import secrets

import pytest
from service import Service


@pytest.fixture(params=["memory", "sqlite"])
def service(request, tmp_path):
    url = f"memory://{secrets.token_hex(8)}" if request.param == "memory" else f"sqlite://{tmp_path}/queue.db"
    with Service(url, f"file://{tmp_path}/blobs") as service:
        yield service
