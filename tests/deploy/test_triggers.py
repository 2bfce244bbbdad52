"""Each broker's native trigger: the names of our queues, counts with what is in flight, and what cannot be read."""

from __future__ import annotations

import re
import urllib.parse

import pytest
from projects import BROKERS, SCALING, combination, only_model, project

from dumbwaiter.brokers.rabbitmq.names import dead_name, delay_name, lane_names
from dumbwaiter.config import ScalerSettings, ScalingSettings, Settings
from dumbwaiter.deploy.kubernetes import rendered
from dumbwaiter.deploy.kubernetes.triggers import triggers_of
from dumbwaiter.deploy.models import Measured
from dumbwaiter.errors import ConfigError
from dumbwaiter.scaler.asking import asked, trigger


def found_for(broker, **table):
    of = project(broker, **table)
    return triggers_of(of, of.models[0])


def metadata(broker, **table):
    return [trigger["metadata"] for trigger in found_for(broker, trigger="native", **table).triggers]


def test_redis_is_counted_by_the_length_of_the_streams_themselves():
    *found, scheduled = metadata("redis")
    assert [one["stream"] for one in found] == [
        "dumbwaiter:{resnet}:high",
        "dumbwaiter:{resnet}",
        "dumbwaiter:{resnet}:low",
    ]
    for one in found:
        assert (one["address"], one["databaseIndex"], one["streamLength"]) == ("redis.kitchen:6379", "3", "2")
        # With a group KEDA would count either what is pending or what is not.
        assert not {"consumerGroup", "pendingEntriesCount", "lagCount"} & set(one)
    assert (scheduled["listName"], scheduled["databaseIndex"]) == ("dumbwaiter:{resnet}:scheduled", "3")


def test_rabbitmq_is_counted_over_http_with_what_is_unacknowledged():
    (one,) = metadata("rabbitmq")
    assert (one["protocol"], one["excludeUnacknowledged"], one["operation"]) == ("http", "false", "sum")
    expression = re.compile(one["queueName"])
    for name in lane_names("dumbwaiter", "resnet"):
        assert expression.search(name)
    for other in (dead_name("dumbwaiter", "resnet"), delay_name("dumbwaiter", "resnet", 1, 2.0), "dumbwaiter.resnet2"):
        assert not expression.search(other)
    assert not expression.search("dumbwaiterXresnet")


def test_rabbitmqs_management_is_at_its_usual_port_unless_another_is_named():
    def wanted(**table):
        (entry,) = found_for("rabbitmq", trigger="native", **table).native.entries
        return entry.wanted

    assert "http://USER:PASSWORD@rabbit.kitchen:15672/%2Fserving" in wanted()
    assert "https://USER:PASSWORD@other/%2Fserving" in wanted(monitor="https://other")


def test_nats_is_counted_in_every_lane_also_that_of_what_was_handed_back():
    found = metadata("nats")
    assert [one["consumer"] for one in found] == ["high", "normal", "low", "again"]
    assert {one["stream"] for one in found} == {"dumbwaiter+resnet"}
    assert {one["natsServerMonitoringEndpoint"] for one in found} == {"nats.kitchen:8222"}


def test_pulsar_is_counted_with_what_is_delayed_for_it_is_workers_who_move_that():
    found = metadata("pulsar")
    assert [one["topic"].rpartition(".")[2] for one in found] == ["high", "normal", "low", "delayed"]
    assert {one["topic"].rpartition(".")[0] for one in found} == {"persistent://kitchen/serving/dumbwaiter.resnet"}
    assert {one["subscription"] for one in found} == {"dumbwaiter"}


def test_sqs_is_counted_with_what_is_in_flight():
    found = metadata("sqs")
    assert [one["queueURL"] for one in found] == [
        "dumbwaiter_resnet_high",
        "dumbwaiter_resnet",
        "dumbwaiter_resnet_low",
    ]
    assert {one["scaleOnInFlight"] for one in found} == {"true"}
    whole = metadata("sqs", monitor="https://sqs.eu-central-1.amazonaws.com/123")
    assert whole[1]["queueURL"] == "https://sqs.eu-central-1.amazonaws.com/123/dumbwaiter_resnet"


def test_service_bus_is_counted_in_all_lanes_at_once():
    (one,) = metadata("servicebus")
    assert (one["namespace"], one["operation"], one["useRegex"]) == ("kitchen", "sum", "true")
    for name in ("dumbwaiter_resnet", "dumbwaiter_resnet_high", "dumbwaiter_resnet_low"):
        assert re.search(one["queueName"], name)
    assert not re.search(one["queueName"], "dumbwaiter_resnet_2")


def test_pubsub_is_counted_in_each_subscription_of_its_project():
    assert [one["subscriptionName"] for one in metadata("pubsub")] == [
        "projects/my-kitchen/subscriptions/dumbwaiter.resnet~high",
        "projects/my-kitchen/subscriptions/dumbwaiter.resnet",
        "projects/my-kitchen/subscriptions/dumbwaiter.resnet~low",
    ]


@pytest.mark.parametrize("broker", [name for name in BROKERS if name not in {"kafka", "rediss"}])
def test_lanes_are_added_up_for_the_hpa_would_take_the_largest(broker):
    found = found_for(broker, trigger="native")
    names = [trigger["name"] for trigger in found.triggers]
    if broker == "redis":
        # What was sent for later wants one worker, who moves it, and not as many as it is messages.
        assert found.formula == "high + normal + low + min(scheduled, 1.0)"
        assert names == ["high", "normal", "low", "scheduled"]
    else:
        assert found.formula == (" + ".join(names) if len(names) > 1 else None)
    assert {trigger["metricType"] for trigger in found.triggers} == {"AverageValue"}


@pytest.mark.parametrize("scaling", SCALING)
def test_a_pod_of_two_workers_counts_for_two(scaling):
    each = {"messages_each": 3.0}
    of = project("sqs", trigger=scaling, models=only_model(scaling=ScalingSettings(max_replicas=4, **each)))
    two = project(
        "sqs",
        trigger=scaling,
        gpu="shared",
        containers=2,
        models=only_model(scaling=ScalingSettings(max_replicas=4, **each)),
    )
    one, double = triggers_of(of, of.models[0]), triggers_of(two, two.models[0])
    if scaling == "external-push":
        # With a formula KEDA would no more ask whether the pool is active, and never end the last pod.
        assert (one.formula, double.formula) == (None, None)
        each = [found.triggers[0]["metadata"].get("workers_each") for found in (one, double)]
        assert each == [None, "2"]
    elif scaling == "metrics-api":
        assert [found.triggers[0]["metadata"]["targetValue"] for found in (one, double)] == ["1", "2"]
    else:
        assert (one.target, double.target) == ("3", "6")


def test_our_scaler_is_asked_where_its_service_is():
    (push,) = found_for("sqs", trigger="external-push", namespace="kitchen").triggers
    assert push["metadata"] == {
        "scalerAddress": "scaler.kitchen.svc:9090",
        "model": "resnet",
        "boot": "120s",
    }
    (page,) = found_for("sqs", trigger="metrics-api", namespace="kitchen").triggers
    assert page["metadata"]["url"] == "http://scaler.kitchen.svc:8090/v1/scale/resnet?boot=120s"
    assert page["metadata"]["valueLocation"] == "desired"


@pytest.mark.parametrize("measured", [None, {"resnet": Measured(load_seconds=30.0, start_seconds=1.5)}])
@pytest.mark.parametrize(
    ("told", "boot", "wanted"), [(None, 90.0, (None, 90.0)), (None, 0.0, (None, 0.0)), (7.0, 90.0, (7.0, 0.0))]
)
def test_what_our_scaler_is_told_it_takes(measured, told, boot, wanted):
    """The metadata of a pod of two workers, and the query of the page, are wishes that it reads: a cold start that is
    set, or else what comes before the start that workers measure, and no measure of the day of rendering.
    """
    models = only_model(scaling=ScalingSettings(max_replicas=4, cold_start=told))
    pair = {"gpu": "shared", "containers": 2, "boot": boot, "models": models, "measured": measured}
    push, page = (project("sqs", trigger=name, **pair) for name in ("external-push", "metrics-api"))
    (one,) = triggers_of(push, push.models[0]).triggers
    metadata, each = trigger(one["metadata"])
    (one,) = triggers_of(page, page.models[0]).triggers
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(one["metadata"]["url"]).query))
    assert each == 2
    for wish in (asked(metadata, Settings()), asked({**query, "model": "resnet"}, Settings())):
        assert (wish.scaling.cold_start, wish.boot) == wanted


@pytest.mark.parametrize(
    ("each", "containers", "target"), [(2.5, 2, "5"), (0.5, 2, "1"), (1.0, 1, "1"), (2.5, 1, None), (0.5, 1, None)]
)
def test_a_number_of_messages_is_never_rounded_in_silence(each, containers, target):
    shared = {"gpu": "shared", "containers": containers} if containers > 1 else {}
    models = only_model(scaling=ScalingSettings(max_replicas=4, messages_each=each))
    of = project("sqs", trigger="native", models=models, **shared)
    if target is not None:
        assert triggers_of(of, of.models[0]).target == target
        return
    said = rf"messages_each = {each:g}: .* a whole number .*; write {max(1, int(each))}, or kubernetes\.trigger"
    with pytest.raises(ConfigError, match=said):
        triggers_of(of, of.models[0])


def test_a_scaler_with_a_certificate_is_asked_by_tls():
    pair = {"certfile": "/etc/dumbwaiter-certificates/a.crt", "keyfile": "/etc/dumbwaiter-certificates/a.key"}
    of = project("sqs", certificates="own", scaler=ScalerSettings(**pair))
    (push,) = triggers_of(of, of.models[0]).triggers
    assert push["metadata"]["enableTLS"] == "true"
    found = {
        (each.object["kind"], each.object["metadata"]["name"]): each.object["spec"]
        for each in rendered(of)
        if "spec" in each.object
    }
    login = found["TriggerAuthentication", push["authenticationRef"]["name"]]
    assert login == {"secretTargetRef": [{"parameter": "caCert", "name": "own", "key": "ca.crt"}]}
    (container,) = found["Deployment", "scaler"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    assert "/etc/dumbwaiter-certificates" in [mount["mountPath"] for mount in container["volumeMounts"]]


@pytest.mark.parametrize(
    ("broker", "table", "said"),
    [
        ("kafka", {}, "their ledger"),
        ("nats://nats.kitchen", {}, "monitor"),
        ("pulsar://pulsar.kitchen", {}, "admin"),
        ("sqs://", {}, "region"),
        ("rediss://redis.kitchen?ca_certs=/etc/ssl/own.pem", {}, "kubernetes.certificates"),
    ],
)
def test_what_kedas_trigger_cannot_read_is_refused_with_what_to_write_instead(broker, table, said):
    with pytest.raises(ConfigError) as caught:
        found_for(broker, trigger="native", **table)
    assert said in str(caught.value)


@pytest.mark.parametrize("scaling", ["external-push", "metrics-api"])
def test_kafka_scales_by_our_own_scaler(scaling):
    of = combination("kafka", scaling, "none")
    assert triggers_of(of, of.models[0]).triggers


def test_certificates_come_from_their_secret():
    found = found_for("rediss", trigger="native", certificates="ca")
    assert found.native.files == {"ca": "ca.crt"}
    assert found.triggers[0]["metadata"]["enableTLS"] == "true"
