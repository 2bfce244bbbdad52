"""A running service over each broker, with a blob store beside it."""

from __future__ import annotations

import secrets
import threading

import pytest
from service import Service, gateway_before

from dumbwaiter.client import requests


@pytest.fixture(params=["memory", "sqlite"])
def service(request, tmp_path):
    url = f"memory://{secrets.token_hex(8)}" if request.param == "memory" else f"sqlite://{tmp_path}/queue.db"
    with Service(url, f"file://{tmp_path}/blobs") as service:
        yield service


@pytest.fixture
def gateway(service):
    """A gateway before the service; the fixture is its URL."""
    with gateway_before(service) as url:
        yield url


@pytest.fixture
def workplaces(monkeypatch):
    """The threads in which values are encoded (``sent``) and answers decoded (``got``), in order."""
    threads = {"sent": [], "got": []}

    def noting(list_, verb):
        def note(*arguments):
            list_.append(threading.current_thread())
            return verb(*arguments)

        return note

    monkeypatch.setattr(requests, "encode_input", noting(threads["sent"], requests.encode_input))
    monkeypatch.setattr(requests, "decode_output", noting(threads["got"], requests.decode_output))
    return threads
