"""Every notification reaches its URL at least once, signed, or lies among the dead letters with the reason."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from standardwebhooks import Webhook

from dumbwaiter import notification
from dumbwaiter.answers import failed, succeeded
from dumbwaiter.blobs.results import failure_mark, forget_failure, load_result, result_key, save_result
from dumbwaiter.config import CourierSettings, OutboundSettings
from dumbwaiter.courier import run_courier
from dumbwaiter.courier.posts import Composer
from dumbwaiter.errors import (
    BlobError,
    BrokerError,
    BrokerUnavailableError,
    ConfigError,
    LockLostError,
    MessageTooLargeError,
    QueueNotFoundError,
)
from dumbwaiter.message import WEBHOOK, WEBHOOKS_QUEUE, Failure, Message, Timings
from dumbwaiter.policies import delivering
from dumbwaiter.prediction import INLINE_NBYTES, as_told, encode_prediction, finished, links_of
from dumbwaiter.signing import SigningKey, created_at
from dumbwaiter.testing import eventually
from http_servers import always, response, serving

pytestmark = pytest.mark.anyio

KEY = SigningKey(b"k" * 32)


def a_request(url, *, style="webhook", tenant=None, id_=None, **attributes):
    id_ = id_ or KEY.new_id("echo", tenant, now=1000.0)
    if style == "reply":
        return Message(id=id_, tenant=tenant, time=1000.0, reply_to=url, **attributes)
    return Message(id=id_, tenant=tenant, time=1000.0, extensions={WEBHOOK: url}, **attributes)


async def answered(broker, store, request, body=b'"HELLO"', content_type="application/json", failure=None):
    """What a worker does: the result saved, then told of."""
    if failure is None:
        answer = succeeded(request, body=body, content_type=content_type, timings=Timings(device=0.25))
    else:
        answer = failed(request, failure)
    await save_result(store, request.id, answer, threshold=1024)
    answer = await load_result(store, request.id)
    await broker.send(WEBHOOKS_QUEUE, notification.completed(request, answer, model="echo"))
    return answer


async def empty(broker):
    """The queue has nothing left, and no dead letter."""
    stats = await broker.stats(WEBHOOKS_QUEUE)
    assert (stats.ready, stats.locked, stats.delayed, stats.dead) == (0, 0, 0, 0), stats
    return True


async def the_dead_letter(broker):
    (letter,) = await eventually(lambda: broker.dead_letters(WEBHOOKS_QUEUE))
    return letter


def now_again(monkeypatch):
    """Tries follow each other at once."""
    monkeypatch.setattr(delivering, "FIRST_DELAY", 0.0)


# --- what is sent ---


async def test_a_webhook_gets_the_prediction_that_a_caller_would_read(broker, store, courier):
    async with serving(always(response(204))) as server:
        courier(public_url="https://api.example.com/")
        request = a_request(server.url("/hook?a=b"))
        answer = await answered(broker, store, request)
        await eventually(lambda: empty(broker))
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.headers["content-type"]) == ("POST", "/hook?a=b", "application/json")
    links = links_of(request.id, "https://api.example.com/")
    same = finished(answer, id_=request.id, model="echo", created_at=created_at(request.id), links=links)
    assert asked.body == encode_prediction(as_told(same, "completed"))
    told = json.loads(asked.body)
    assert (told["event"], told["status"], told["output"]) == ("completed", "succeeded", "HELLO")
    assert told["urls"]["get"] == f"https://api.example.com/v1/predictions/{request.id}"


@pytest.mark.parametrize("style", ["webhook", "reply"])
@pytest.mark.parametrize("tenant", [None, "acme", "ümläut"])
async def test_what_is_sent_is_signed_as_standard_webhooks_are(broker, store, courier, style, tenant):
    async with serving(always(response())) as server:
        courier()
        await answered(broker, store, a_request(server.url(), style=style, tenant=tenant))
        await eventually(lambda: empty(broker))
    (asked,) = server.asked
    Webhook(KEY.webhook_secret(tenant)).verify(asked.body, asked.headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(KEY.webhook_secret("another")).verify(asked.body, asked.headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(KEY.webhook_secret(tenant)).verify(asked.body + b" ", asked.headers)
    assert "." not in asked.headers["webhook-id"]


async def test_a_reply_is_the_answer_itself_as_a_cloud_event(broker, store, courier):
    async with serving(always(response())) as server:
        courier()
        request = a_request(server.url(), style="reply", tenant="a b", correlation_id='say "hé" 100%')
        answer = await answered(broker, store, request, body=b"\x89PNG" + b"x" * 5000, content_type="image/png")
        await eventually(lambda: empty(broker))
    (asked,) = server.asked
    assert asked.body == b"\x89PNG" + b"x" * 5000
    assert asked.headers["content-type"] == "image/png"
    assert asked.headers["ce-specversion"] == "1.0"
    assert asked.headers["ce-type"] == "dumbwaiter.prediction.succeeded"
    assert asked.headers["ce-id"] == answer.id
    assert asked.headers["ce-correlationid"] == "say%20%22h%C3%A9%22%20100%25"
    assert asked.headers["ce-tenant"] == "a%20b"
    assert "ce-datacontenttype" not in asked.headers


@pytest.mark.parametrize("nbytes", [INLINE_NBYTES - 2, INLINE_NBYTES + 1, 5 * INLINE_NBYTES])
async def test_a_long_output_is_a_link_in_a_webhook_and_whole_in_a_reply(broker, store, courier, nbytes):
    async with serving(always(response())) as server:
        courier()
        request = a_request(server.url("/hook"), id_=KEY.new_id("echo", None, now=1000.0))
        request = msgspec.structs.replace(request, reply_to=server.url("/reply"))
        answer = await answered(broker, store, request, body=b"x" * nbytes, content_type="text/plain")
        await eventually(lambda: empty(broker))
    bodies = {asked.path: asked.body for asked in server.asked}
    links = links_of(request.id)
    same = finished(answer, id_=request.id, model="echo", created_at=created_at(request.id), links=links)
    assert bodies["/hook"] == encode_prediction(as_told(same, "completed"))
    told = json.loads(bodies["/hook"])
    assert told.get("output_url") == (links.output if nbytes > INLINE_NBYTES else None)
    assert (told["output"] is None) == (nbytes > INLINE_NBYTES)
    assert bodies["/reply"] == b"x" * nbytes


async def test_a_failure_is_told_too(broker, store, courier):
    async with serving(always(response())) as server:
        courier()
        failure = Failure(code="model-error", message="too hot", detail="Traceback of /srv/model.py", attempts=3)
        await answered(broker, store, a_request(server.url("/hook")), failure=failure)
        await answered(broker, store, a_request(server.url("/reply"), style="reply"), failure=failure)
        await eventually(lambda: empty(broker))
    told = {asked.path: json.loads(asked.body) for asked in server.asked}
    assert (told["/hook"]["status"], told["/hook"]["error"]["message"]) == ("failed", "too hot")
    assert (told["/reply"]["code"], told["/reply"]["message"]) == ("model-error", "too hot")
    assert not any(b"Traceback" in asked.body for asked in server.asked)


async def test_an_id_that_no_gateway_gave_out_has_no_links(broker, store, courier):
    async with serving(always(response())) as server:
        courier()
        await answered(broker, store, a_request(server.url(), id_="made up/by hand"))
        await eventually(lambda: empty(broker))
    told = json.loads(server.asked[0].body)
    assert (told["id"], told["output"], "urls" in told) == ("made up/by hand", "HELLO", False)


async def progress(broker, request, event, prediction=b'{"status":"processing","output":[1,"\\u00e9"]}', occasion="1"):
    """What a worker does while a request runs."""
    request = msgspec.structs.replace(request, extensions={**request.extensions, "webhookevents": "start,output"})
    told = notification.progressed(request, event, prediction, model="echo", occasion=occasion)
    await broker.send(WEBHOOKS_QUEUE, told)


async def test_progress_is_sent_as_the_worker_wrote_it_with_its_event_and_dropped_in_the_end(
    broker, courier, monkeypatch
):
    now_again(monkeypatch)
    statuses = iter([200, 500, 500, 500, 500])

    async def answer(asked, writer):
        writer.write(response(next(statuses)))

    async with serving(answer) as server:
        courier()
        request = a_request(server.url(), id_="made up/by hand")
        for event in ("start", "output", "logs"):
            await progress(broker, request, event)
            await eventually(lambda: empty(broker))
    assert [asked.body for asked in server.asked] == [
        b'{"status":"processing","output":[1,"\\u00e9"],"event":"%b"}' % event
        for event in (b"start", b"output", b"output", b"output")
    ]
    assert len({asked.headers["webhook-id"] for asked in server.asked}) == 2


async def test_progress_has_the_links_that_the_end_will_have(broker, store, courier):
    async with serving(always(response())) as server:
        courier(public_url="https://api.example.com")
        for id_ in (None, "made up/by hand"):
            request = a_request(server.url(), id_=id_)
            before = b'{"status":"processing","urls":{"get":"/elsewhere"}}'
            await progress(broker, request, "start", before)
            await eventually(lambda: empty(broker))
            await answered(broker, store, request)
            await eventually(lambda: empty(broker))
            start, end = (json.loads(asked.body).get("urls") for asked in server.asked[-2:])
            assert start == end
            assert (start is None) == (id_ is not None)
            assert start is None or start["get"] == f"https://api.example.com/v1/predictions/{request.id}"


async def test_progress_that_is_none_is_dropped(broker, courier):
    async with serving(always(response())) as server:
        courier()
        await progress(broker, a_request(server.url()), "start", b"[1]")
        await eventually(lambda: empty(broker))
    assert not server.asked


@pytest.mark.parametrize("url", ["https://10.0.0.1/", "file:///etc/passwd"])
async def test_progress_for_a_url_that_is_forbidden_is_dropped_and_its_end_is_a_dead_letter(
    broker, store, courier, url
):
    courier()
    request = a_request(url)
    for number in range(3):
        await progress(broker, request, "output", occasion=str(number))
    await eventually(lambda: empty(broker))
    await answered(broker, store, request)
    assert (await the_dead_letter(broker)).reason == "forbidden-url"
    assert (await broker.stats(WEBHOOKS_QUEUE)).dead == 1


# --- when it fails ---


async def test_a_receiver_that_fails_gets_it_again_with_the_same_id_and_a_good_signature(
    broker, store, courier, monkeypatch
):
    now_again(monkeypatch)
    statuses = iter([500, 404, 302, 200])

    async def answer(asked, writer):
        writer.write(response(next(statuses)))

    async with serving(answer) as server:
        courier()
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: empty(broker))
    assert len(server.asked) == 4
    assert len({asked.headers["webhook-id"] for asked in server.asked}) == 1
    assert len({asked.body for asked in server.asked}) == 1
    for asked in server.asked:
        Webhook(KEY.webhook_secret(None)).verify(asked.body, asked.headers)


async def test_after_the_last_try_it_is_a_dead_letter_that_can_be_sent_again(broker, store, courier, monkeypatch):
    now_again(monkeypatch)
    healthy = False

    async def answer(asked, writer):
        writer.write(response(200 if healthy else 503))

    async with serving(answer) as server:
        courier()
        await answered(broker, store, a_request(server.url("/hook?token=secret")))
        letter = await the_dead_letter(broker)
        assert (letter.reason, letter.detail) == ("webhook-failed", f"{server.url('/hook')}: it answered 503")
        assert len(server.asked) == delivering.MAX_TRIES
        healthy = True
        assert await broker.redrive(WEBHOOKS_QUEUE) == 1
        await eventually(lambda: empty(broker))
    assert len({asked.headers["webhook-id"] for asked in server.asked}) == 1


async def test_the_next_try_waits_in_the_broker(broker, store, courier):
    async with serving(always(response(500))) as server:
        courier()
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: is_delayed(broker))
    assert len(server.asked) == 1


async def is_delayed(broker):
    return (await broker.stats(WEBHOOKS_QUEUE)).delayed == 1


async def test_a_receiver_that_says_gone_is_not_asked_again(broker, store, courier):
    async with serving(always(response(410))) as server:
        courier()
        await answered(broker, store, a_request(server.url()))
        assert (await the_dead_letter(broker)).reason == "webhook-gone"
    assert len(server.asked) == 1


async def test_a_receiver_that_is_not_there_is_tried_until_the_end(broker, store, courier, monkeypatch):
    now_again(monkeypatch)
    async with serving(always(response())) as server:
        url = server.url()
    courier()
    await answered(broker, store, a_request(url))
    letter = await the_dead_letter(broker)
    assert (letter.reason, letter.delivery_count) == ("webhook-failed", delivering.MAX_TRIES)
    assert letter.detail == f"{url}: it cannot be connected to"


async def drip(asked, writer):
    while True:
        writer.write(b"H")
        await writer.drain()
        await asyncio.sleep(0.01)


async def hang(asked, writer):
    await asyncio.Event().wait()


@pytest.mark.parametrize("answer", [drip, hang])
async def test_a_receiver_that_takes_too_long_is_left_and_tried_again(broker, store, courier, answer):
    async with serving(answer) as server:
        courier(timeout=0.1)
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: is_delayed(broker))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2:9/",
        "http://10.0.0.1/",
        "https://[::ffff:169.254.169.254]/",
        "file:///etc/passwd",
        "http://2130706433/",
    ],
)
async def test_a_url_that_is_forbidden_is_a_dead_letter_at_once(broker, store, courier, url):
    courier()
    await answered(broker, store, a_request(url, tenant="acme"))
    letter = await the_dead_letter(broker)
    assert (letter.reason, letter.delivery_count) == ("forbidden-url", 1)
    assert letter.detail.startswith(f"{url!r} must not be reached: ")


def to(server):
    return always(response(307, location=server.url()))


async def test_a_redirect_within_is_a_dead_letter_and_is_not_followed(broker, store, courier):
    async with serving(always(response()), host="127.0.0.2") as inside, serving(to(inside)) as server:
        courier()
        await answered(broker, store, a_request(server.url()))
        letter = await the_dead_letter(broker)
    assert letter.reason == "forbidden-url"
    assert "redirects to a place that is not allowed" in letter.detail
    assert inside.connections == 0


async def redriven(store, request):
    await forget_failure(store, request.id, await failure_mark(store, request.id))


async def test_an_old_notification_is_dropped_when_its_request_was_redriven_and_has_another_answer(
    broker, store, courier
):
    async with serving(always(response(204))) as server:
        request = a_request(server.url())
        await answered(broker, store, request, failure=Failure(code="model-error", message="wrong"))
        await redriven(store, request)
        await answered(broker, store, request)
        courier()
        await eventually(lambda: empty(broker))
    (asked,) = server.asked
    assert json.loads(asked.body)["status"] == "succeeded"


async def test_an_old_notification_waits_for_the_answer_of_a_request_that_was_redriven(
    broker, store, courier, monkeypatch
):
    monkeypatch.setattr(delivering, "FIRST_DELAY", 0.01)
    async with serving(always(response(204))) as server:
        request = a_request(server.url())
        await answered(broker, store, request, failure=Failure(code="model-error", message="wrong"))
        await redriven(store, request)
        courier()
        await asyncio.sleep(0.05)  # it is tried once or more, or not yet
        assert server.asked == []
        await answered(broker, store, request)
        await eventually(lambda: empty(broker))
    (asked,) = server.asked
    assert json.loads(asked.body)["status"] == "succeeded"


async def test_a_result_that_nobody_can_read_is_said(broker, store, courier):
    request = a_request("http://127.0.0.1:9/")
    await answered(broker, store, request)
    await store.put(result_key(request.id), b"damaged")
    courier()
    letter = await the_dead_letter(broker)
    assert letter.reason == "result-damaged"
    assert letter.detail.startswith(f"the result of '{request.id}' is damaged: ")


async def test_a_result_that_is_gone_is_said(broker, store, courier, monkeypatch):
    now_again(monkeypatch)
    request = a_request("http://127.0.0.1:9/")
    answer = succeeded(request, body=b"1", content_type="application/json", timings=Timings())
    await broker.send(WEBHOOKS_QUEUE, notification.completed(request, answer, model="echo"))
    courier()
    assert (await the_dead_letter(broker)).reason == "result-gone"


async def test_what_is_no_notification_is_a_dead_letter(broker, courier):
    await broker.send(WEBHOOKS_QUEUE, [Message(body=b"\xff what?")])
    courier()
    assert (await the_dead_letter(broker)).reason == "bad-notification"


# --- when others fail ---


class FailingStore:
    """Reads fail so many times."""

    def __init__(self, store, times):
        self._store, self.times = store, times

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def get(self, key):
        self.times -= 1
        if self.times >= 0:
            raise BlobError("the store is down")
        return await self._store.get(key)


async def test_a_store_that_is_down_for_a_while_is_asked_again(broker, store, courier, monkeypatch):
    now_again(monkeypatch)
    async with serving(always(response())) as server:
        await answered(broker, store, a_request(server.url()))
        courier(store=FailingStore(store, times=3))
        await eventually(lambda: empty(broker))
    assert len(server.asked) == 1


async def test_a_result_that_cannot_be_read_is_a_dead_letter_in_the_end(broker, store, courier, monkeypatch):
    now_again(monkeypatch)
    await answered(broker, store, a_request("http://127.0.0.1:9/"))
    courier(store=FailingStore(store, times=1000))
    letter = await the_dead_letter(broker)
    assert (letter.reason, letter.detail) == ("webhook-failed", "the store is down")


class FailingBroker:
    """Each verb that is named fails so many times."""

    def __init__(self, broker, **times):
        self._broker, self.times = broker, times

    def __getattr__(self, name):
        verb = getattr(self._broker, name)
        if name not in self.times:
            return verb

        async def failing(*arguments, **options):
            if self.times[name] > 0:
                self.times[name] -= 1
                raise BrokerUnavailableError("the broker is down")
            return await verb(*arguments, **options)

        return failing


async def test_a_broker_that_is_down_for_a_while_is_waited_for(broker, store, courier, monkeypatch):
    monkeypatch.setattr("dumbwaiter.holding.RETRY_EVERY", 0.01)
    failing = FailingBroker(broker, create_queue=1, receive=2, complete=3)
    async with serving(always(response())) as server:
        await answered(broker, store, a_request(server.url()))
        courier(broker=failing)
        await eventually(lambda: empty(broker))
    assert failing.times == {"create_queue": 0, "receive": 0, "complete": 0}
    assert len(server.asked) == 1, "what was delivered is not delivered again"


async def test_whatever_the_broker_fails_with_ends_no_courier(broker, store, courier, monkeypatch):
    async with serving(always(response())) as server:
        receive, failures = broker.receive, [MessageTooLargeError(2, 1), BrokerError("strange")]

        async def failing(queue, **how):
            if failures:
                raise failures.pop()
            return await receive(queue, **how)

        monkeypatch.setattr(broker, "receive", failing)
        courier()
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: empty(broker))
    assert (len(server.asked), failures) == (1, [])


async def test_a_queue_that_is_gone_is_made_again_and_delivering_goes_on(broker, store, courier, monkeypatch):
    async with serving(always(response())) as server:
        receive, gone = broker.receive, [True, True]

        async def missing(queue, **how):
            if gone:
                gone.pop()
                raise QueueNotFoundError(queue)
            return await receive(queue, **how)

        monkeypatch.setattr(broker, "receive", missing)
        made = []
        create = broker.create_queue
        monkeypatch.setattr(broker, "create_queue", lambda queue: made.append(queue) or create(queue))
        courier()
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: empty(broker))
    assert len(server.asked) == 1
    assert made == [WEBHOOKS_QUEUE] * 3, "at the start, and each time that it was gone"


async def test_locks_are_renewed_while_a_receiver_takes_its_time(broker, store, courier):
    go = asyncio.Event()

    async def slow(asked, writer):
        await go.wait()
        writer.write(response())

    async with serving(slow) as server:
        courier(timeout=30.0)
        courier(timeout=30.0)
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: server.asked)
        await asyncio.sleep(1.5 * broker.lock_duration)
        go.set()
        await eventually(lambda: empty(broker))
    assert len(server.asked) == 1


class LosingBroker:
    """Says of every renewal that the lock is lost, and hands the message to somebody else."""

    def __init__(self, broker):
        self._broker = broker

    def __getattr__(self, name):
        return getattr(self._broker, name)

    async def renew_lock(self, deliveries):
        await self._broker.abandon(deliveries, counted=False)
        raise LockLostError(deliveries)


async def test_a_lost_lock_is_no_harm_the_other_courier_delivers_it_with_the_same_id(broker, store, courier):
    go = asyncio.Event()

    async def slow(asked, writer):
        await go.wait()
        writer.write(response())

    async with serving(slow) as server:
        _, stop, _ = courier(broker=LosingBroker(broker), timeout=30.0)
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: server.asked)
        stop.set()
        courier(timeout=30.0)
        await eventually(lambda: len(server.asked) == 2)
        go.set()
        await eventually(lambda: empty(broker))
    assert len({asked.headers["webhook-id"] for asked in server.asked}) == 1


async def test_a_message_that_ends_every_courier_is_a_dead_letter_untried(broker, store, courier):
    async with serving(always(response())) as server:
        await answered(broker, store, a_request(server.url()))
        for _ in range(2 * delivering.MAX_TRIES):
            await broker.abandon(await broker.receive(WEBHOOKS_QUEUE, max_messages=1, max_wait=5.0))
        courier()
        assert (await the_dead_letter(broker)).reason == "delivery-limit"
    assert server.asked == []


async def test_a_fault_of_ours_costs_that_message_only(broker, store, courier, monkeypatch, caplog):
    real = Composer.composed

    def composed(self, notification, tenant):
        if notification.url.endswith("/bad"):
            raise RuntimeError("a fault of ours")
        return real(self, notification, tenant)

    monkeypatch.setattr(Composer, "composed", composed)
    async with serving(always(response())) as server:
        courier()
        await answered(broker, store, a_request(server.url("/bad")))
        await answered(broker, store, a_request(server.url("/good")))
        await eventually(lambda: "a fault of ours" in caplog.text)
        await eventually(lambda: server.asked)
    assert [asked.path for asked in server.asked] == ["/good"]


# --- many at once ---


async def test_a_host_that_hangs_does_not_stop_the_others(broker, store, courier):
    async with serving(hang) as stuck, serving(always(response())) as server:
        for number in range(30):
            await answered(broker, store, a_request(stuck.url(f"/{number}")))
        for number in range(10):
            await answered(broker, store, a_request(f"http://localhost:{server.port}/{number}"))
        courier(
            outbound=OutboundSettings(allow_http=True, allowed_networks=["127.0.0.0/8", "::1/128"]),
            timeout=30.0,
            concurrency=8,
            per_host=2,
        )
        await eventually(lambda: len(server.asked) == 10, within=10.0)
        assert 0 < len(stuck.asked) <= 2


async def test_receivers_of_one_tenant_that_hang_do_not_stop_those_of_another(broker, store, courier):
    async with serving(hang) as stuck, serving(always(response())) as server:
        for number in range(30):
            await answered(broker, store, a_request(stuck.url(f"/{number}"), tenant="stuck"))
        for number in range(10):
            await answered(broker, store, a_request(server.url(f"/{number}"), tenant="sound"))
        courier(timeout=30.0, concurrency=8, per_host=8)
        await eventually(lambda: len(server.asked) == 10, within=10.0)
        assert 0 < len(stuck.asked) < 8


async def hang_below_hang(asked, writer):
    if asked.path.startswith("/hang/"):
        await hang(asked, writer)
    writer.write(response())


async def test_paths_of_some_tenants_that_hang_do_not_stop_what_another_has_at_the_same_host(broker, store, courier):
    async with serving(hang_below_hang) as server:
        for number in range(60):
            await answered(broker, store, a_request(server.url(f"/hang/{number}"), tenant=f"evil-{number % 3}"))
        courier(timeout=60.0, concurrency=64, per_host=16)

        async def hanging_ones_hold_all_they_can_have_and_the_rest_is_sent_away():
            stats = await broker.stats(WEBHOOKS_QUEUE)
            return len(server.asked) == stats.locked == 12 and stats.delayed + stats.ready == 48

        await eventually(hanging_ones_hold_all_they_can_have_and_the_rest_is_sent_away, within=10.0)
        for number in range(20):
            await answered(broker, store, a_request(server.url(f"/good/{number}"), tenant="nice"))

        def good():
            return {asked.path for asked in server.asked if asked.path.startswith("/good/")}

        await eventually(lambda: len(good()) == 20, within=10.0)
        assert len(server.asked) == 32, "each of the 20 came once, and no more of those that hang"


async def test_a_burst_for_one_host_is_delivered_in_turns_and_nobody_loses_a_try(broker, store, courier):
    now, most = 0, 0

    async def busy(asked, writer):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        writer.write(response())

    async with serving(busy) as server:
        for number in range(60):
            await answered(broker, store, a_request(server.url(f"/{number}")))
        courier(concurrency=16, per_host=3)
        await eventually(lambda: empty(broker), within=30.0)
    assert most <= 3
    assert sorted(int(asked.path[1:]) for asked in server.asked) == list(range(60))


class Forgetful:
    """A broker that keeps no delays and counts every delivery."""

    def __init__(self, broker):
        self._broker = broker
        self.capabilities = msgspec.structs.replace(
            broker.capabilities, abandon_delay=False, uncounted_abandon=False, send_delay=False
        )

    def __getattr__(self, name):
        return getattr(self._broker, name)

    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await self._broker.abandon(deliveries)


async def test_with_a_broker_that_keeps_no_delays_a_burst_waits_in_hand_and_loses_no_try(broker, store, courier):
    async with serving(always(response())) as server:
        for number in range(30):
            await answered(broker, store, a_request(server.url(f"/{number}")))
        courier(broker=Forgetful(broker), concurrency=16, per_host=1)
        await eventually(lambda: empty(broker), within=20.0)
    assert sorted(int(asked.path[1:]) for asked in server.asked) == list(range(30))


class CountsAll:
    """A broker that keeps delays, but counts every delivery; it writes down what is abandoned."""

    def __init__(self, broker):
        self._broker = broker
        self.capabilities = msgspec.structs.replace(broker.capabilities, uncounted_abandon=False)
        self.abandoned = []

    def __getattr__(self, name):
        return getattr(self._broker, name)

    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        self.abandoned += deliveries
        await self._broker.abandon(deliveries, delay=delay)


async def test_with_a_broker_that_counts_every_delivery_a_burst_waits_in_hand_too(broker, store, courier):
    counting = CountsAll(broker)
    async with serving(always(response())) as server:
        for number in range(20):
            await answered(broker, store, a_request(server.url(f"/{number}")))
        courier(broker=counting, concurrency=16, per_host=1)
        await eventually(lambda: empty(broker), within=20.0)
    assert sorted(int(asked.path[1:]) for asked in server.asked) == list(range(20))
    assert counting.abandoned == [], "it would have cost a try"


async def test_with_a_broker_that_keeps_no_delays_the_next_try_is_not_made_at_once(broker, store, courier):
    async with serving(always(response(500))) as server:
        task, stop, hurry = courier(broker=Forgetful(broker))
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: server.asked)
        stop.set()
        hurry.set()
        await task
        assert len(server.asked) == 1
        (delivery,) = await broker.receive(WEBHOOKS_QUEUE, max_messages=1, max_wait=5.0)
    assert delivery.delivery_count == 2


async def test_a_fault_of_the_loop_ends_the_courier_rather_than_leave_it_half_dead(broker, store):
    class Broken(Forgetful):
        async def receive(self, *_arguments, **_options):
            raise RuntimeError("a fault of ours")

    settings, outbound = CourierSettings(), OutboundSettings()
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await run_courier(Broken(broker), store, settings, outbound, KEY, stop=asyncio.Event())


async def test_settings_that_name_no_network_end_it_before_anything_is_received(broker, store):
    outbound = OutboundSettings(allowed_networks=["inside"])
    with pytest.raises(ConfigError, match=r"outbound\.allowed_networks"):
        await run_courier(broker, store, CourierSettings(), outbound, KEY, stop=asyncio.Event())


# --- leaving ---


async def test_told_to_stop_it_lets_what_is_under_way_end(broker, store, courier):
    states, go = [], asyncio.Event()

    async def slow(asked, writer):
        await go.wait()
        writer.write(response())

    async with serving(slow) as server:
        task, stop, _ = courier(on_state=lambda state, reason: states.append(state))
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: server.asked)
        stop.set()
        await eventually(lambda: states == ["ready", "draining"])
        await answered(broker, store, a_request(server.url("/later")))
        go.set()
        assert await task == 0
    stats = await broker.stats(WEBHOOKS_QUEUE)
    assert (stats.ready, stats.locked, len(server.asked)) == (1, 0, 1)


@pytest.mark.parametrize("how", ["hurry", "grace"])
async def test_what_does_not_end_in_time_goes_back_at_once_and_uncounted(broker, store, courier, how):
    async with serving(hang) as server:
        task, stop, hurry = courier(timeout=30.0, grace=0.1 if how == "grace" else 30.0)
        await answered(broker, store, a_request(server.url()))
        await eventually(lambda: server.asked)
        stop.set()
        if how == "hurry":
            hurry.set()
        assert await task == 0
        (delivery,) = await broker.receive(WEBHOOKS_QUEUE, max_messages=1, max_wait=5.0)
    assert delivery.delivery_count == 1


class NeverCompletes:
    """Says nothing to a complete(); it writes down what is abandoned."""

    def __init__(self, broker):
        self._broker = broker
        self.completing, self.abandoned = [], []

    def __getattr__(self, name):
        return getattr(self._broker, name)

    async def complete(self, deliveries):
        self.completing += deliveries
        await asyncio.Event().wait()

    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        self.abandoned += deliveries
        await self._broker.abandon(deliveries, delay=delay, counted=counted)


async def test_what_is_being_completed_when_it_leaves_is_not_handed_back(broker, store, courier):
    slow = NeverCompletes(broker)
    async with serving(always(response())) as server, serving(hang) as stuck:
        task, stop, hurry = courier(broker=slow, timeout=30.0)
        await answered(broker, store, a_request(server.url()))
        await answered(broker, store, a_request(stuck.url()))
        await eventually(lambda: slow.completing and stuck.asked)
        stop.set()
        hurry.set()
        assert await task == 0
    (delivered,) = slow.completing
    assert delivered.message.id not in [one.message.id for one in slow.abandoned], "it was received already"
    assert len(slow.abandoned) == 1


async def test_stopped_before_anything_came_it_just_ends(courier):
    task, stop, _ = courier()
    stop.set()
    assert await task == 0
