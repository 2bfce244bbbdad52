"""A kitchen to deploy on one machine: one model on the GPU, one that scales, one on the CPU with weights of its own."""

from __future__ import annotations

from dumbwaiter.config import GatewaySettings, ModelSettings, ScalingSettings, Settings
from dumbwaiter.deploy.requirements import Requirements

HOME = "/home/chef/kitchen"
PASSWORD = "hunter2-is-secret"
PINNED = Requirements(pins=["dumbwaiter[redis]==0.1.0", "redis==7.1.0"], source="requirements.txt")


def settings(broker="sqlite:/home/chef/kitchen/.dumbwaiter/queue.db", *, models=None, **more):
    models = models or {
        "resnet": ModelSettings(target="network:Infer", replicas=2, project=HOME),
        "Text.Embedding": ModelSettings(target="embed/bert.py:Embed", scaling=ScalingSettings(max_replicas=4)),
        "add": ModelSettings(target="light:Add", device="none", weights=f"{HOME}/big/add.safetensors", timeout=400.0),
    }
    known = {
        "blobs": f"file:{HOME}/.dumbwaiter/blobs",
        "slots": f"{HOME}/.dumbwaiter/slots",
        "footprints": f"{HOME}/.dumbwaiter/footprints",
        "gateway": GatewaySettings(signing_key=f"{PASSWORD}-and-32-bytes-of-it-at-the-least", body_limit=1000),
    }
    return Settings(broker=broker, home=HOME, models=models, **{**known, **more})
