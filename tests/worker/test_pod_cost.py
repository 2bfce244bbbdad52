"""What ending a pod would cost reaches an API server over TLS, with the pod's own token, and only when it changes.

The server here is a double of ours: no real one can run on this machine.
"""

from __future__ import annotations

import http.server
import json
import logging
import os
import ssl
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certificates import make_certificate
from dumbwaiter.worker.pod_cost import ANNOTATION, PodCost, cost_of

pytestmark = pytest.mark.anyio


class ApiServer:
    """Takes patches of pods and answers with *status*."""

    def __init__(self, certfile, keyfile):
        self.patches = []
        self.status = 200
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PATCH(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.patches.append((self.path, dict(self.headers), body))
                self.send_response(api.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certfile, keyfile)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def costs(self):
        return [body["metadata"]["annotations"][ANNOTATION] for _, _, body in self.patches]

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def account(tmp_path):
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("pod-token\n")
    certfile, keyfile = make_certificate(tmp_path)
    (folder / "ca.crt").write_text(certfile.read_text())
    return folder, certfile, keyfile


@pytest.fixture
def api(account):
    server = ApiServer(*account[1:])
    yield server
    server.stop()


def environ(port, **more):
    return {
        "POD_NAME": "worker-resnet-abc",
        "POD_NAMESPACE": "kitchen",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT_HTTPS": str(port),
        **more,
    }


async def test_the_own_pod_is_patched_with_its_token_and_with_nothing_but_the_cost(api, account):
    cost = PodCost.here(environ(api.port), account=account[0])
    await cost.tell(5.0)
    ((path, headers, body),) = api.patches
    assert path == "/api/v1/namespaces/kitchen/pods/worker-resnet-abc"
    assert headers["Authorization"] == "Bearer pod-token"
    assert headers["Content-Type"] == "application/merge-patch+json"
    assert body == {"metadata": {"annotations": {ANNOTATION: "8"}}}


async def test_it_is_told_again_only_when_it_has_changed_noticeably(api, account):
    cost = PodCost.here(environ(api.port), account=account[0])
    for seconds in (5.0, 6.0, 8.0, 9.0, 0.0, 0.0):
        await cost.tell(seconds)
    assert api.costs() == ["8", "16", "0"]


async def test_what_fails_is_logged_once_and_tried_again(api, account, caplog):
    cost = PodCost.here(environ(api.port), account=account[0])
    api.status = 403
    with caplog.at_level(logging.WARNING):
        await cost.tell(1.0)
        await cost.tell(1.0)
    assert len([record for record in caplog.records if "pod" in record.message]) == 1
    api.status = 200
    await cost.tell(1.0)
    await cost.tell(1.0)
    assert len(api.patches) == 3


async def test_a_server_that_is_not_the_clusters_is_told_nothing(api, account, tmp_path, caplog):
    other, _ = make_certificate(tmp_path, "other")
    (account[0] / "ca.crt").write_text(other.read_text())
    await PodCost.here(environ(api.port), account=account[0]).tell(1.0)
    assert api.patches == []
    assert "cannot be told" in caplog.text


async def test_workers_of_one_pod_tell_their_sum(api, account, tmp_path, monkeypatch):
    costs = tmp_path / "costs"
    cost = PodCost.here(environ(api.port, POD_COSTS=str(costs)), account=account[0])
    for container, seconds in (("worker-1", 4.0), ("worker-2", 3.0)):
        monkeypatch.setenv("POD_CONTAINER", container)
        await cost.tell(seconds)
    assert api.costs() == ["4", "8"]
    # One that has said nothing for long holds nothing any more.
    os.utime(costs / "worker-1", (0, 0))
    await cost.tell(3.0)
    assert api.costs()[-1] == "4"


@pytest.mark.parametrize("missing", ["POD_NAME", "POD_NAMESPACE", "KUBERNETES_SERVICE_HOST"])
def test_outside_of_a_pod_nobody_is_told(account, missing):
    known = environ(1)
    del known[missing]
    assert PodCost.here(known, account=account[0]) is None


def test_without_a_token_nobody_is_told(tmp_path):
    assert PodCost.here(environ(1), account=tmp_path) is None


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_who_holds_more_costs_no_less(first, second):
    fewer, more = sorted((first, second))
    assert 0 <= cost_of(fewer) <= cost_of(more) < 2**31


@given(st.floats(0.001, 1e9))
def test_a_cost_is_at_most_twice_what_is_held_and_never_nothing(seconds):
    assert max(1.0, seconds) <= cost_of(seconds) <= max(1.0, 2 * seconds)
