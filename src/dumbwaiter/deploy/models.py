"""What is deployed of a project: its models, with what was measured of them, and what each is called. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec

from dumbwaiter.blobs.profiles import ServiceProfile
from dumbwaiter.config import ModelSettings, Settings

_LONGEST_MODEL = 45
"""So that Kubernetes has room for what it puts behind a Deployment's name, and we for what stands before."""
_GOOD = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What workers measured of a model, in seconds; 0.0 and None for what was never seen."""

    load_seconds: float = 0.0
    start_seconds: float = 0.0
    long_batch: float | None = None

    @property
    def cold_start(self) -> float:
        """From starting a worker until it can serve."""
        return self.start_seconds + self.load_seconds

    @classmethod
    def of(cls, profile: ServiceProfile) -> Measured:
        """What *profile* tells."""
        return cls(
            load_seconds=profile.load_seconds, start_seconds=profile.start_seconds, long_batch=profile.long_batch
        )


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model, with its *settings* as they are here."""

    name: str
    settings: ModelSettings
    measured: Measured = Measured()

    @property
    def object_name(self) -> str:
        """What its objects are called."""
        return f"worker-{object_name(self.name)}"


def object_name(model: str) -> str:
    """*model* in small letters, digits and dashes. One that must be changed ends in a digest, so that two stay two."""
    if len(model) <= _LONGEST_MODEL and _GOOD.fullmatch(model):
        return model
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    written = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[: _LONGEST_MODEL - 9].strip("-")
    return f"{written or 'model'}-{digest}"


def deployed(settings: Settings, measured: Mapping[str, Measured] | None) -> list[Model]:
    """The models of *settings*, with what was *measured* of each, by name."""
    found = measured or {}
    models = settings.models.items()
    return [Model(name=name, settings=one, measured=found.get(name, Measured())) for name, one in models]
