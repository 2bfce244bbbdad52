"""Projects to deploy: a broker of each kind, each way to scale, each way to get a GPU."""

from __future__ import annotations

import msgspec

from dumbwaiter.config import KubernetesSettings, ModelSettings, ScalingSettings, Settings
from dumbwaiter.deploy.kubernetes import project_of

PASSWORD = "hunter2-is-secret"
BROKERS = {
    "redis": f"redis://chef:{PASSWORD}@redis.kitchen:6379/3",
    "rediss": "rediss://redis.kitchen?prefix=staging&ca_certs=/etc/dumbwaiter-certificates/ca.crt",
    "rabbitmq": f"amqp://chef:{PASSWORD}@rabbit.kitchen/%2Fserving",
    "nats": f"nats://chef:{PASSWORD}@nats.kitchen:4222?monitor=http://nats.kitchen:8222",
    "kafka": f"kafka://chef:{PASSWORD}@kafka.kitchen:9093",
    "pulsar": f"pulsar://pulsar.kitchen/kitchen/serving?admin=http://pulsar.kitchen:8080&token={PASSWORD}",
    "sqs": "sqs://eu-central-1",
    "servicebus": f"servicebus://chef:{PASSWORD}@kitchen.servicebus.windows.net",
    "pubsub": "pubsub://my-kitchen",
}
SCALING = ("external-push", "metrics-api", "native")
GPUS = {
    "exclusive": {"gpus": 2},
    "shared": {"containers": 2},
    "time-slicing": {"containers": 2, "node_ledgers": "/var/lib/dumbwaiter"},
    "mps": {},
    "mig": {"mig_profile": "1g.10gb"},
    "none": {},
}
IDENTITIES = {"sqs": "aws", "servicebus": "azure", "pubsub": "gcp"}


def settings(broker="rabbitmq", *, models=None, blobs="s3://kitchen/blobs", gateway=None, scaler=None, **table):
    """Those of a kitchen with two models: one that scales, and one on the CPU that does not."""
    scaling = ScalingSettings(max_replicas=6)
    models = models or {
        "resnet": ModelSettings(target="network:Infer", scaling=scaling),
        "Text.Embedding": ModelSettings(target="embed:Embed", device="none", replicas=3),
    }
    more = {name: value for name, value in (("gateway", gateway), ("scaler", scaler)) if value}
    return Settings(
        broker=BROKERS.get(broker, broker),
        blobs=blobs,
        home="/home/chef/kitchen",
        models=models,
        kubernetes=KubernetesSettings(**{"image": "registry.example.com/kitchen:1.4", **table}),
        **more,
    )


def project(broker="rabbitmq", *, measured=None, **table):
    return project_of(settings(broker, **table), measured)


def combination(broker, scaling, gpu):
    """One of the whole product of ways."""
    certificates = {"certificates": "ca"} if broker == "rediss" else {}
    return project(broker, trigger=scaling, gpu=gpu, **GPUS[gpu], **certificates)


def only_model(**changes):
    return {"resnet": ModelSettings(target="network:Infer", **changes)}


def replaced(found, **changes):
    return msgspec.structs.replace(found, **changes)
