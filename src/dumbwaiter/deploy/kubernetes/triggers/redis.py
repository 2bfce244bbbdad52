"""Redis and Valkey: the length of each lane's stream, and whether anything was sent for later."""

from __future__ import annotations

from dumbwaiter.brokers.redis.keys import keys_of
from dumbwaiter.brokers.redis.location import location_of
from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.kubernetes.secrets import Entry
from dumbwaiter.deploy.kubernetes.triggers.files import without_files
from dumbwaiter.deploy.kubernetes.triggers.shape import Native, Trigger

_NOTE = (
    "XLEN of each lane: an entry stays in its stream until it is completed, so its length is what waits, what runs and "
    "what waits for another try. pendingEntriesCount alone would never wake anybody, and lagCount alone would forget "
    "what runs. What was sent with a delay comes into a lane only when a worker looks: while there is any of it there "
    "is one worker, whenever it is due."
)


def native(url: str, queue: str, target: int, _: KubernetesSettings) -> Native:
    """The triggers for *queue*."""
    url, files = without_files(url, "ca_certs")
    location = location_of(url)
    keys = keys_of(location.prefix, queue)
    common = {"address": f"{location.host}:{location.port}", "databaseIndex": str(location.database)}
    if location.is_encrypted:
        common |= {"enableTLS": "true", "unsafeSsl": "false" if location.verify else "true"}
    lanes = {"high": keys.high, "normal": keys.normal, "low": keys.low}
    counted = {"streamLength": str(target), "activationLagCount": "0"}
    account = {"username": location.username, "password": location.password}
    used = {name: f"redis-{name}" for name, value in account.items() if value is not None}
    return Native(
        triggers=[
            *(Trigger(name, "redis-streams", {"stream": key, **common, **counted}) for name, key in lanes.items()),
            # KEDA's trigger for lists tells the size of hashes too.
            Trigger("scheduled", "redis", {"listName": keys.scheduled, **common, "listLength": str(target)}),
        ],
        formula=" + ".join([*lanes, "min(scheduled, 1.0)"]),
        secrets=used,
        files={"ca": files["ca_certs"]} if files else {},
        entries=[Entry(key, f"the {name} in the broker's URL, as it is") for name, key in used.items()],
        note=_NOTE,
    )
