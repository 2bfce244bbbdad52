"""The client against real sockets: nothing forbidden is ever connected to, and nothing holds it for long."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from hostile_urls import NAMES, URLS
from socket_watching import watched

from dumbwaiter.config import OutboundSettings
from dumbwaiter.errors import ForbiddenUrlError, OutboundError
from dumbwaiter.outbound import OutboundClient
from dumbwaiter.outbound.client import ANSWER_WITHIN
from dumbwaiter.testing import eventually
from http_servers import always, response, serving

pytestmark = pytest.mark.anyio

HERE = OutboundSettings(allow_http=True, allowed_networks=["127.0.0.1/32"], fetch_timeout=5.0)
OPEN = OutboundSettings(allow_http=True, allowed_networks=["127.0.0.0/8", "::1/128"])
GUARDED = OutboundSettings(allow_http=True)


class Names:
    """A resolver that answers from a table, one entry of *answers* after the other for a name that has several."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): list(turns) for name, turns in answers.items()}
        self.asked = []

    async def __call__(self, host):
        self.asked.append(host)
        if host in self.answers:
            turns = self.answers[host]
            return [ipaddress.ip_address(one) for one in (turns.pop(0) if len(turns) > 1 else turns[0])]
        if host in NAMES:
            return [ipaddress.ip_address(one) for one in NAMES[host]]
        raise OutboundError(f"the host {host!r} cannot be resolved", transient=True)


def post(client, url, timeout=5.0, **headers):
    return client.post(url, body=b"hello", headers=headers, timeout=timeout)


def three_listeners():
    """On 127.0.0.1, 127.0.0.2 and ::1, all at one port."""
    for _ in range(50):
        first = socket.create_server(("127.0.0.1", 0))
        port = first.getsockname()[1]
        with contextlib.ExitStack() as stack:
            stack.enter_context(first)
            try:
                second = stack.enter_context(socket.create_server(("127.0.0.2", port)))
                third = stack.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
            except OSError:
                continue
            stack.pop_all()
            return first, second, third
    return pytest.skip("no port is free on 127.0.0.1, 127.0.0.2 and ::1")


@pytest.fixture
async def inside():
    """The port of three listeners on loopback that hang up on everyone, and who came: (port, visits)."""
    listeners, visits = three_listeners(), []
    loop = asyncio.get_running_loop()

    def hang_up(listener):
        connection, _ = listener.accept()
        visits.append(listener.getsockname()[0])
        connection.close()

    for one in listeners:
        one.setblocking(False)
        loop.add_reader(one, hang_up, one)
    yield listeners[0].getsockname()[1], visits
    for one in listeners:
        loop.remove_reader(one)
        one.close()


async def test_no_hostile_url_makes_a_single_connection(inside):
    port, visits = inside
    assert len(URLS) >= 200
    async with OutboundClient(GUARDED, resolve=Names()) as client:
        with watched() as seen:
            for trick, url in URLS:
                hostile = url.replace("PORT", str(port))
                for attempt in (post(client, hostile), client.fetch(hostile)):
                    with pytest.raises((ForbiddenUrlError, OutboundError)):
                        await attempt
                assert seen == [], f"{trick}: {hostile!r}"
    assert visits == []


async def test_the_watch_sees_the_same_urls_connect_once_they_are_allowed(inside):
    port, visits = inside
    expected = {
        "http://127.0.0.1:PORT/": "127.0.0.1",
        "http://127.0.0.2:PORT/": "127.0.0.2",
        "http://[::1]:PORT/": "::1",
        "http://①②⑦.⓪.⓪.①:PORT/": "127.0.0.1",
        "http://127。0。0。1:PORT/": "127.0.0.1",
        "http://[::ffff:127.0.0.1]:PORT/": "::ffff:7f00:1",
        "http://LOCALHOST:PORT/": "::1",
        "http://loopback.test:PORT/": "127.0.0.1",
    }
    assert set(expected) <= {url for _, url in URLS}
    async with OutboundClient(OPEN, resolve=Names()) as client:
        with watched() as seen:
            for url in expected:
                with pytest.raises(OutboundError, match="broke"):
                    await post(client, url.replace("PORT", str(port)))
    assert seen == list(expected.values())
    assert set(visits) == {"127.0.0.1", "127.0.0.2", "::1"}


# --- names ---


async def test_a_name_is_resolved_once_and_connected_to_at_the_address_that_was_checked():
    names = Names(hooks_test=[["127.0.0.1"], ["127.0.0.2"]])
    async with serving(always(response())) as server, OutboundClient(HERE, resolve=names) as client:
        with watched() as seen:
            answer = await post(client, f"http://hooks.test:{server.port}/a?b=c")
    assert (answer.status, seen, names.asked) == (200, ["127.0.0.1"], ["hooks.test"])
    assert server.asked[0].headers["host"] == f"hooks.test:{server.port}"
    assert server.asked[0].path == "/a?b=c"


async def test_a_name_that_answers_public_first_and_loopback_then_is_refused_then():
    names = Names(rebinding_test=[["127.0.0.1"], ["127.0.0.2"]])
    close = response(connection="close")
    async with serving(always(close)) as server, OutboundClient(HERE, resolve=names) as client:
        assert (await post(client, f"http://rebinding.test:{server.port}/")).status == 200
        with watched() as seen, pytest.raises(ForbiddenUrlError, match="not public"):
            await post(client, f"http://rebinding.test:{server.port}/")
        assert seen == []


@pytest.mark.parametrize("both", [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "::1"]])
async def test_a_name_with_one_forbidden_address_among_good_ones_is_refused(both):
    names = Names(both_test=[both])
    async with serving(always(response())) as server, OutboundClient(HERE, resolve=names) as client:
        with watched() as seen, pytest.raises(ForbiddenUrlError):
            await post(client, f"http://both.test:{server.port}/")
    assert (seen, server.connections) == ([], 0)


async def test_the_next_address_of_a_name_is_tried_when_the_first_refuses():
    names = Names(hooks_test=[["127.0.0.2", "127.0.0.1"]])
    async with serving(always(response(204))) as server, OutboundClient(OPEN, resolve=names) as client:
        assert (await post(client, f"http://hooks.test:{server.port}/")).status == 204


async def test_a_family_that_is_out_of_reach_does_not_use_up_the_tries():
    names = Names(hooks_test=[["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "::1"]])
    async with serving(always(response()), host="::1") as server, OutboundClient(OPEN, resolve=names) as client:
        with watched() as seen:
            assert (await post(client, f"http://hooks.test:{server.port}/")).status == 200
    assert seen == ["127.0.0.2", "127.0.0.3", "::1"]


async def test_the_systems_own_resolver_knows_localhost_and_it_is_refused():
    async with OutboundClient(GUARDED) as client:
        with watched() as seen, pytest.raises(ForbiddenUrlError, match="not public"):
            await client.fetch("http://localhost/")
    assert seen == []


async def test_a_name_that_does_not_exist_is_an_error_that_may_pass():
    async with OutboundClient(GUARDED) as client:
        with pytest.raises(OutboundError, match=r"'nowhere\.invalid' cannot be resolved") as caught:
            await client.fetch("http://nowhere.invalid/")
    assert caught.value.transient


async def test_a_resolver_that_hangs_is_not_waited_for():
    async def hang(host):
        await asyncio.Event().wait()

    async with OutboundClient(GUARDED, resolve=hang) as client:
        with pytest.raises(OutboundError, match=r"within 0\.05 s"):
            await post(client, "http://example.com/", timeout=0.05)


# --- redirects ---


WITHIN = ["http://127.0.0.2:PORT/", "http://[::1]:PORT/", "http://loopback6.test:PORT/", "//10.0.0.1/"]
WITHIN += ["http://2130706433:PORT/", "http://u@127.0.0.1:PORT/", "file:///etc/passwd", "http://127.0.0.1:0/"]


@pytest.mark.parametrize("location", WITHIN)
async def test_a_redirect_to_a_place_that_is_not_allowed_is_not_followed(inside, location):
    port, visits = inside
    location = location.replace("PORT", str(port))
    names = Names()
    async with serving(Redirect(location)) as server, OutboundClient(HERE, resolve=names) as client:
        with watched() as seen:
            for attempt in (post(client, server.url()), client.fetch(server.url())):
                with pytest.raises(ForbiddenUrlError, match="redirects to a place that is not allowed") as caught:
                    await attempt
                assert caught.value.url == server.url()
                assert location not in str(caught.value)
        assert set(seen) == {"127.0.0.1"}
        assert len(server.asked) == 2
    assert visits == []


class Redirect:
    """Redirects everything to *location*, with *status*."""

    def __init__(self, location="", status=307):
        self.location, self.status = location, status

    async def __call__(self, asked, writer):
        if asked.path == "/end":
            writer.write(response(200, b"here", content_type="text/plain"))
        else:
            writer.write(response(self.status, location=self.location))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirected_post_is_posted_again_with_its_body_and_headers(status):
    async with serving(Redirect("/end", status)) as server, OutboundClient(HERE) as client:
        answer = await post(client, server.url("/start"), **{"webhook-id": "msg_1"})
    assert (answer.status, answer.url) == (200, server.url("/end"))
    assert [(one.method, one.path, one.body, one.headers["webhook-id"]) for one in server.asked] == [
        ("POST", "/start", b"hello", "msg_1"),
        ("POST", "/end", b"hello", "msg_1"),
    ]


async def test_see_other_ends_a_post_and_is_followed_by_a_fetch():
    async with serving(Redirect("/end", 303)) as server, OutboundClient(HERE) as client:
        assert (await post(client, server.url("/start"))).status == 303
        assert await client.fetch(server.url("/start")) == ("text/plain", b"here")


async def test_a_redirect_without_a_location_is_the_answer():
    async with serving(always(response(307))) as server, OutboundClient(HERE) as client:
        assert (await post(client, server.url())).status == 307
        with pytest.raises(OutboundError, match="answered 307"):
            await client.fetch(server.url())


async def test_a_loop_of_redirects_ends():
    async with serving(Redirect("/again")) as server, OutboundClient(HERE) as client:
        with pytest.raises(OutboundError, match="more than 3 redirects"):
            await post(client, server.url())
        assert len(server.asked) == 4
        with pytest.raises(OutboundError, match="more than 5 redirects"):
            await client.fetch(server.url())
        assert len(server.asked) == 10


# --- encryption ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for hooks.test that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hooks.test"]
    command += ["-addext", "subjectAltName=DNS:hooks.test", "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return pem, key


@pytest.fixture
def tls(certificate):
    """What a server says about itself, and what a client trusts; *names* is filled with those that clients ask for."""
    pem, key = certificate
    context, names = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
    context.load_cert_chain(pem, key)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    return context, ssl.create_default_context(cafile=pem), names


async def test_the_certificate_is_asked_for_and_checked_by_name_though_the_connection_is_by_address(tls):
    context, trust, asked_for = tls
    names = Names(hooks_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    client = OutboundClient(HERE, resolve=names, ssl_context=trust)
    async with serving(always(response()), ssl=context) as server, client:
        assert (await post(client, f"https://hooks.test:{server.port}/")).status == 200
        with pytest.raises(OutboundError, match="certificate was not accepted: Hostname mismatch"):
            await post(client, f"https://other.test:{server.port}/")
    assert asked_for == ["hooks.test", "other.test"]
    assert [asked.headers["host"] for asked in server.asked] == [f"hooks.test:{server.port}"]


async def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tls):
    context, _, _ = tls
    names = Names(hooks_test=[["127.0.0.1"]])
    async with serving(always(response()), ssl=context) as server, OutboundClient(HERE, resolve=names) as client:
        with pytest.raises(OutboundError, match="certificate was not accepted") as caught:
            await post(client, f"https://hooks.test:{server.port}/")
    assert caught.value.transient
    assert server.asked == []


async def test_a_redirect_that_gives_up_encryption_is_not_followed_though_http_is_allowed(tls):
    context, trust, _ = tls
    names = Names(hooks_test=[["127.0.0.1"]])
    client = OutboundClient(HERE, resolve=names, ssl_context=trust)
    async with serving(always(response())) as plain, serving(Redirect(plain.url()), ssl=context) as server, client:
        with pytest.raises(ForbiddenUrlError, match="without encryption"):
            await post(client, f"https://hooks.test:{server.port}/")
    assert plain.connections == 0


# --- what is bounded ---


async def drip(asked, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_head(asked, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def hang(asked, writer):
    await asyncio.Event().wait()


async def endless(asked, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def endless_interim(asked, writer):
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()


@pytest.mark.parametrize("answer", [drip_head, hang, endless_interim])
async def test_a_server_that_never_comes_to_an_end_is_left(answer):
    settings = OutboundSettings(allow_http=True, allowed_networks=["127.0.0.1/32"], fetch_timeout=0.2)
    async with serving(answer) as server, OutboundClient(settings) as client:
        with pytest.raises(OutboundError, match=r"no complete answer within 0\.2 s") as caught:
            await post(client, server.url(), timeout=0.2)
        assert caught.value.transient
        with pytest.raises(OutboundError, match=r"within 0\.2 s"):
            await client.fetch(server.url())


async def test_a_body_that_drips_bounds_a_fetch_and_is_not_heard_out_after_a_post(monkeypatch):
    monkeypatch.setattr("dumbwaiter.outbound.client.ANSWER_WITHIN", 0.05)
    settings = OutboundSettings(allow_http=True, allowed_networks=["127.0.0.1/32"], fetch_timeout=0.2)
    async with serving(drip) as server, OutboundClient(settings) as client:
        assert (await post(client, server.url())).status == 200, "the status has been said"
        assert (await post(client, server.url(), timeout=0.2)).status == 200, "also just before time is up"
        with pytest.raises(OutboundError, match=r"within 0\.2 s"):
            await client.fetch(server.url())


async def test_a_body_is_heard_out_no_longer_than_the_whole_exchange_may_take():
    assert ANSWER_WITHIN > 0.3
    async with serving(drip) as server, OutboundClient(HERE) as client:
        assert (await post(client, server.url(), timeout=0.3)).status == 200, "the status was said in time"


async def half_a_body(asked, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
    writer.close()


async def test_a_connection_that_breaks_in_the_body_breaks_a_fetch_alone():
    async with serving(half_a_body) as server, OutboundClient(HERE) as client:
        assert (await post(client, server.url())).status == 200
        with pytest.raises(OutboundError) as caught:
            await client.fetch(server.url())
    assert caught.value.transient


def sockets():
    return sum(1 for one in Path("/proc/self/fd").iterdir() if is_socket(one))


def is_socket(one):
    with contextlib.suppress(FileNotFoundError):
        return str(one.readlink()).startswith("socket:")
    return False


async def hang_up_late(reader, writer):
    """Never says anything, and leaves when the other side does."""
    await reader.read()
    writer.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("how", ["timeout", "cancelled"])
async def test_no_socket_is_left_behind_by_servers_that_hang(scheme, how):
    listening = await asyncio.start_server(hang_up_late, "127.0.0.1", 0)
    url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    async with OutboundClient(HERE) as client:
        before = sockets()
        tasks = [asyncio.create_task(post(client, url, timeout=0.3 if how == "timeout" else 30)) for _ in range(20)]
        await eventually(lambda: sockets() >= before + 20)
        if how == "cancelled":
            for task in tasks:
                task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {OutboundError if how == "timeout" else asyncio.CancelledError}
        await eventually(lambda: sockets() == before)
    listening.close()


async def test_an_endless_body_is_read_up_to_the_limit():
    settings = OutboundSettings(allow_http=True, allowed_networks=["127.0.0.1/32"], fetch_limit=100_000)
    async with serving(endless) as server, OutboundClient(settings) as client:
        assert (await post(client, server.url())).status == 200
        with pytest.raises(OutboundError, match="larger than 100000 bytes") as caught:
            await client.fetch(server.url())
    assert not caught.value.transient


async def test_a_body_that_says_it_is_too_long_is_not_read():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"
    async with serving(always(head)) as server, OutboundClient(HERE) as client:
        with pytest.raises(OutboundError, match="larger than"):
            await client.fetch(server.url())


async def test_huge_headers_are_refused():
    async with serving(always(response(x="y" * 500_000))) as server, OutboundClient(HERE) as client:
        with pytest.raises(OutboundError, match=r"not HTTP/1\.1 as it should be"):
            await post(client, server.url())


async def test_a_compressed_body_is_refused():
    zipped = response(200, b"\x1f\x8b", content_encoding="gzip")
    async with serving(always(zipped)) as server, OutboundClient(HERE) as client:
        with pytest.raises(OutboundError, match="compressed"):
            await client.fetch(server.url())
    assert server.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "data", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", b"\x16\x03\x01\x00"]
)
async def test_what_is_not_http_is_an_error_that_may_pass(data):
    async def answer(asked, writer):
        writer.write(data)
        writer.close()

    async with serving(answer) as server, OutboundClient(HERE) as client:
        with pytest.raises(OutboundError) as caught:
            await post(client, server.url())
    assert caught.value.transient


@pytest.mark.parametrize(
    ("status", "transient"),
    [(404, False), (403, False), (408, True), (425, True), (429, True), (500, True), (503, True)],
)
async def test_a_fetch_needs_a_success(status, transient):
    async with serving(always(response(status))) as server, OutboundClient(HERE) as client:
        with pytest.raises(OutboundError, match=f"answered {status}") as caught:
            await client.fetch(server.url())
    assert (caught.value.status, caught.value.transient) == (status, transient)


async def test_no_cookie_and_no_proxy_is_ever_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.2:9/")
    async with serving(always(response(set_cookie="a=b"))) as server, OutboundClient(HERE) as client:
        await post(client, server.url())
        await post(client, server.url())
    assert all("cookie" not in one.headers for one in server.asked)


async def test_errors_tell_no_address_that_the_caller_did_not_name():
    names = Names(secret_test=[["10.9.8.7"]], closed_test=[["127.0.0.1"]])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with OutboundClient(HERE, resolve=names) as client:
        with pytest.raises(ForbiddenUrlError) as forbidden:
            await post(client, f"http://secret.test:{port}/")
        with pytest.raises(OutboundError) as closed:
            await post(client, f"http://closed.test:{port}/")
    assert "10.9.8.7" not in str(forbidden.value)
    assert "127.0.0.1" not in str(closed.value)
    assert closed.value.transient


async def test_a_header_that_cannot_be_sent_is_an_error_for_good():
    async with serving(always(response())) as server, OutboundClient(HERE) as client:
        with pytest.raises(OutboundError) as caught:
            await post(client, server.url(), **{"content-type": "text/plain\r\nx: y"})
    assert not caught.value.transient


async def test_many_requests_at_once_each_get_their_own_answer():
    async def echo(asked, writer):
        writer.write(response(200, asked.path.encode()))

    async with serving(echo) as server, OutboundClient(HERE) as client:
        answers = await asyncio.gather(*(client.fetch(server.url(f"/{n}")) for n in range(50)))
    assert [body for _, body in answers] == [f"/{n}".encode() for n in range(50)]


async def test_a_cancelled_post_leaves_the_client_usable():
    async with serving(hang) as stuck, serving(always(response())) as server, OutboundClient(HERE) as client:
        task = asyncio.create_task(post(client, stuck.url(), timeout=30.0))
        await eventually(lambda: stuck.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await post(client, server.url())).status == 200
