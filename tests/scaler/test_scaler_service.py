"""KEDA's service, asked by a real gRPC client over a real queue."""

from __future__ import annotations

import asyncio

import grpc
import httpx
import pytest
from keda_client import MESSAGES, VERBS, Keda, refused
from scaler_running import cooking, measured, working

from dumbwaiter.config import ScalingSettings
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio
INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def test_an_empty_queue_is_not_active_and_one_message_makes_it_so(kitchen, keda):
    assert not await keda.is_active(model="cats")
    await kitchen.send("cats")
    assert await keda.is_active(model="dogs") is False  # whose look is not that of the cats
    async with Keda(kitchen.doors.grpc_port) as other:
        assert await other.is_active(model="cats", drain_target="7s")  # a fresh pool, and so a fresh look


async def test_what_is_in_flight_keeps_it_active_and_the_metric_at_one(kitchen, keda):
    await kitchen.send("cats")
    await kitchen.broker.receive("cats", max_messages=1, max_wait=1.0)
    assert await keda.is_active(model="cats")
    assert await keda.metric(model="cats") == ("dumbwaiter-cats", 1.0)


async def test_the_metric_is_the_number_of_workers_that_the_work_asks_for(kitchen, keda):
    await measured(kitchen.store, "cats", 2.0)
    await kitchen.send("cats", 20)
    # 40 s of work within 5 s, at the first look, which knows of no load that comes.
    assert await keda.metric(model="cats") == ("dumbwaiter-cats", 8.0)
    assert await keda.metric(model="cats", drain_target="20s") == ("dumbwaiter-cats", 2.0)
    assert await keda.metric(model="cats", signal="messages", messages_each="4") == ("dumbwaiter-cats", 5.0)
    assert await keda.metric(model="cats", max_replicas="3") == ("dumbwaiter-cats", 3.0)
    assert await keda.metric(model="dogs") == ("dumbwaiter-dogs", 0.0)


async def test_a_cold_start_is_what_the_trigger_says_of_nodes_and_what_workers_have_measured_by_now(kitchen, keda):
    """The same trigger: a model that turns out to load for long is given as much longer, and fewer workers."""
    await measured(kitchen.store, "cats", 2.0)
    await kitchen.send("cats", 20)
    assert await keda.metric(model="cats", boot="10s") == ("dumbwaiter-cats", 4.0)
    await measured(kitchen.store, "cats", 2.0, load_seconds=9.0, start_seconds=1.0)

    async def are_wanted():
        return (await keda.metric(model="cats", boot="10s"))[1] == 2.0

    await eventually(are_wanted)
    assert await keda.metric(model="cats", boot="10s", cold_start="40s") == ("dumbwaiter-cats", 1.0)


async def test_the_metric_is_not_smoothed_for_kubernetes_does_that(kitchen, keda):
    await measured(kitchen.store, "cats", 2.0)
    for number in range(5):
        await working(kitchen.store, "cats", name=f"chef-{number}")
    await kitchen.send("cats", 2)
    assert await keda.metric(model="cats") == ("dumbwaiter-cats", 1.0)
    async with httpx.AsyncClient(trust_env=False) as client:
        told = (await client.get(kitchen.url("/v1/scale/cats"))).json()
    assert (told["raw"], told["desired"]) == (1, 5)


async def test_the_spec_is_one_metric_with_the_target_one(keda):
    assert await keda.metric_spec(model="cats") == ("dumbwaiter-cats", 1, 1.0)


async def test_pods_of_several_workers_are_divided_by_kubernetes_and_end_as_others_do(kitchen, keda):
    """The metric stays in workers, the target is a pod's share, and the pool's rest is what the scaler says it is."""
    pod = {"model": "cats", "workers_each": "2"}
    assert await keda.metric_spec(**pod) == ("dumbwaiter-cats", 2, 2.0)
    await measured(kitchen.store, "cats", 2.0)
    await working(kitchen.store, "cats")
    async with keda.following(look_every="20ms", **pod) as stream:
        await stream.next_is(False)
        await kitchen.send("cats", 15)
        await stream.next_is(True)
        await kitchen.empty("cats")
        await stream.next_is(False)
    name, wanted = await keda.metric(look_every="20ms", **pod)
    assert (name, wanted >= 1.0) == ("dumbwaiter-cats", True)
    assert not await keda.is_active(look_every="20ms", **pod)


async def test_the_metric_of_the_spec_is_the_one_that_is_told(keda):
    name, _, _ = await keda.metric_spec(model="cats")
    assert (await keda.metric(name, model="cats"))[0] == name
    with refused(INVALID, r"^there is no metric 'dumbwaiter-dogs'; model 'cats' has one: dumbwaiter-cats$"):
        await keda.metric("dumbwaiter-dogs", model="cats")


async def test_the_spec_is_streamed_once_and_the_stream_stays_open_until_the_scaler_stops(kitchen, keda):
    call = keda.call("StreamMetricSpec", keda.reference({"model": "cats"}))
    first = await call.read()
    assert [(spec.metricName, spec.targetSizeFloat) for spec in first.metricSpecs] == [("dumbwaiter-cats", 1.0)]
    rest = asyncio.create_task(call.read())
    for _ in range(3):
        await keda.metric_spec(model="cats")  # what comes after the first one would have come by then
    assert not rest.done()
    kitchen.stop.set()
    assert await rest is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_what_keda_says_to_itself_in_the_metadata_is_passed_over(keda):
    of_keda = {"scalerAddress": "scaler:9090", "enableTLS": "true", "unsafeSsl": "false", "caCert": "…"}
    assert not await keda.is_active(model="cats", **of_keda)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({}, r"^scalerMetadata names no model; write model: NAME$"),
        ({"model": ""}, r"names no model"),
        ({"model": "../cats"}, r"'\.\./cats' cannot name a model: use letters, digits"),
        ({"model": "x" * 60_000}, r"cannot name a model|x…$"),
        ({"model": "cats\x00"}, r"cannot name a model"),
        ({"model": "dumbwaiter.webhooks"}, r"are the system's own$"),
        ({"modle": "cats"}, r"names no model"),
        ({"model": "cats", "drain_taget": "5s"}, r"unknown name 'drain_taget'; did you mean 'drain_target'\?$"),
        ({"model": "cats", "drain_target": "soon"}, r"scaling\.drain_target: expected a duration such as"),
        ({"model": "cats", "drain_target": "0"}, r"scaling\.drain_target: expected .*, above 0 and at most 365d, not "),
        ({"model": "cats", "drain_target": "nan"}, r"scaling\.drain_target: "),
        ({"model": "cats", "signal": "vibes"}, r"scaling\.signal: must be one of work, messages, age, not 'vibes'"),
        ({"model": "cats", "messages_each": "-1"}, r"scaling\.messages_each: expected a number, above 0"),
        (
            {"model": "cats", "max_replicas": "1.5"},
            r"scaling\.max_replicas: expected a whole number from 1 to 10000, not ",
        ),
        (
            {"model": "cats", "max_replicas": "9" * 400},
            r"scaling\.max_replicas: expected a whole number from 1 to 10000",
        ),
        (
            {"model": "cats", "workers_each": "1.5"},
            r"workers_each: expected a whole number from 1 to 1000, not '1\.5'$",
        ),
        ({"model": "cats", "look_every": "1us"}, r"scaling\.look_every: "),
        ({"model": "cats", "drain_target": "0.0000001"}, r"scaling\.drain_target: expected a number from 0\.001 to"),
        ({"model": "cats", "min_replicas": "3", "max_replicas": "2"}, r"3 is more than max_replicas, which is 2$"),
        ({"model": "cats", "": ""}, r"unknown name ''"),
        ({"model": "cats", "käse": "1"}, r"unknown name 'käse'"),
    ],
)
async def test_metadata_that_mean_nothing_are_refused_with_what_to_write(keda, metadata, said):
    for verb in ("IsActive", "GetMetricSpec", "StreamIsActive", "StreamMetricSpec"):
        with refused(INVALID, said):
            call = keda.call(verb, keda.reference(metadata))
            await (call.read() if VERBS[verb][1] else call)
    with refused(INVALID, said):
        await keda.metric(**metadata)


async def test_bytes_that_are_no_message_are_refused(keda):
    for verb in VERBS:
        call = keda.channel.unary_unary(f"/externalscaler.ExternalScaler/{verb}")
        with refused(INVALID, r"^the request is no externalscaler\.\w+: "):
            await call(b"\xff\xff\xff")


async def test_a_request_that_is_too_large_is_refused_and_the_next_one_answered(keda):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await keda.is_active(model="cats", signal="x" * 100_000)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not await keda.is_active(model="cats")


async def test_a_verb_that_is_not_there_is_unimplemented(keda):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await keda.channel.unary_unary("/externalscaler.ExternalScaler/Explode")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_model_that_nobody_knows_is_not_found(keda):
    for ask in (keda.is_active, keda.metric):
        with refused(grpc.StatusCode.NOT_FOUND, r"^no model 'cat': it has no queue.*; did you mean 'cats'\?$"):
            await ask(model="cat")
    async with keda.following(model="cat") as stream:
        await stream.end()
    assert (stream.states, stream.ended) == ([], grpc.StatusCode.NOT_FOUND)
    assert await keda.metric_spec(model="cat") == ("dumbwaiter-cat", 1, 1.0)  # which needs no broker


async def test_a_configured_model_without_a_queue_gets_the_worker_that_makes_it(tmp_path):
    async with (
        cooking(f"sqlite:{tmp_path}/queue.db", tmp_path, queues=()) as kitchen,
        Keda(kitchen.doors.grpc_port) as keda,
    ):
        assert await keda.is_active(model="cats")
        assert await keda.metric(model="cats") == ("dumbwaiter-cats", 1.0)


async def test_a_queue_that_the_settings_do_not_name_follows_the_common_ones(tmp_path):
    common = ScalingSettings(signal="messages", messages_each=5.0)
    async with (
        cooking(f"sqlite:{tmp_path}/queue.db", tmp_path, models=(), scaling=common) as kitchen,
        Keda(kitchen.doors.grpc_port) as keda,
    ):
        await kitchen.send("cats", 11)
        assert await keda.metric(model="cats") == ("dumbwaiter-cats", 3.0)


async def test_a_pool_with_a_least_number_is_always_active(keda):
    assert await keda.is_active(model="cats", min_replicas="2")
    assert await keda.metric(model="cats", min_replicas="2") == ("dumbwaiter-cats", 2.0)


async def test_a_pool_with_load_of_late_may_still_end_once_it_is_idle(kitchen, keda):
    """The load of the last minutes keeps the metric up; whether there must be a worker at all is another question."""
    await measured(kitchen.store, "cats", 1.0)
    await working(kitchen.store, "cats")
    scaled = {"model": "cats", "look_every": "20ms"}
    async with keda.following(**scaled) as stream:
        await stream.next_is(False)
        await kitchen.send("cats", 30)
        await stream.next_is(True)
        await kitchen.empty("cats")
        await stream.next_is(False)
    _, wanted = await keda.metric(**scaled)
    assert wanted >= 1.0
    assert not await keda.is_active(**scaled)


def test_the_page_describes_the_service_as_it_is_known():
    assert VERBS == {
        "IsActive": ("ScaledObjectRef", False, "IsActiveResponse"),
        "StreamIsActive": ("ScaledObjectRef", True, "IsActiveResponse"),
        "GetMetricSpec": ("ScaledObjectRef", False, "GetMetricSpecResponse"),
        "GetMetrics": ("GetMetricsRequest", False, "GetMetricsResponse"),
        "StreamMetricSpec": ("ScaledObjectRef", True, "GetMetricSpecResponse"),
    }
    told = MESSAGES["MetricSpec"](metricName="m", targetSize=1, targetSizeFloat=1.0)
    assert told.SerializeToString() == b"\x0a\x01m\x10\x01\x19\x00\x00\x00\x00\x00\x00\xf0\x3f"
