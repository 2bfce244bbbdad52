"""The messages of KEDA's externalscaler.ExternalScaler: the one file that imports protobuf.

Their descriptors are made here from a table, by protobuf's public API: what protoc generates belongs to one version of
protobuf's runtime, and nobody can read or type it. What leaves this file are plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dumbwaiter.errors import ConfigError, MissingExtraError

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError
except ModuleNotFoundError as error:
    raise MissingExtraError("google", "scaler", "protobuf") from error

PACKAGE = "externalscaler"
SERVICE = f"{PACKAGE}.ExternalScaler"

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    "int64": _Field.TYPE_INT64,
    "double": _Field.TYPE_DOUBLE,
}
#: Message -> field -> (type, number), in the words of the proto language.
_MESSAGES: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "ScaledObjectRef": {
        "name": ("string", 1),
        "namespace": ("string", 2),
        "scalerMetadata": ("map<string, string>", 3),
    },
    "IsActiveResponse": {"result": ("bool", 1)},
    "GetMetricSpecResponse": {"metricSpecs": ("repeated MetricSpec", 1)},
    "MetricSpec": {"metricName": ("string", 1), "targetSize": ("int64", 2), "targetSizeFloat": ("double", 3)},
    "GetMetricsRequest": {"scaledObjectRef": ("ScaledObjectRef", 1), "metricName": ("string", 2)},
    "GetMetricsResponse": {"metricValues": ("repeated MetricValue", 1)},
    "MetricValue": {"metricName": ("string", 1), "metricValue": ("int64", 2), "metricValueFloat": ("double", 3)},
}


class Reference(NamedTuple):
    """The ScaledObject that asks, and the *metadata* of its trigger."""

    name: str
    namespace: str
    metadata: Mapping[str, str]


def reference(data: bytes) -> Reference:
    """The ScaledObjectRef in *data*. Raises ConfigError where it is none; so does metric_wanted."""
    return _reference(_decoded("ScaledObjectRef", data))


def metric_wanted(data: bytes) -> tuple[Reference, str]:
    """Who asks, and the name of the metric that the GetMetricsRequest in *data* is about."""
    message = _decoded("GetMetricsRequest", data)
    return _reference(message.scaledObjectRef), message.metricName


def is_active_response(active: bool) -> bytes:
    """An IsActiveResponse."""
    return _encoded("IsActiveResponse", result=active)


def metric_spec_response(name: str, target: int) -> bytes:
    """A GetMetricSpecResponse with one metric, its *target* also in the field that older KEDAs read."""
    spec = {"metricName": name, "targetSize": target, "targetSizeFloat": float(target)}
    return _encoded("GetMetricSpecResponse", metricSpecs=[spec])


def metrics_response(name: str, value: int) -> bytes:
    """A GetMetricsResponse with one metric, its *value* also in the field that older KEDAs read."""
    metric = {"metricName": name, "metricValue": value, "metricValueFloat": float(value)}
    return _encoded("GetMetricsResponse", metricValues=[metric])


def _reference(message: Any) -> Reference:
    return Reference(message.name, message.namespace, dict(message.scalerMetadata))


def _decoded(kind: str, data: bytes) -> Any:
    try:
        return _CLASSES[kind].FromString(data)
    except DecodeError as error:
        raise ConfigError(f"the request is no {PACKAGE}.{kind}: {error}") from None


def _encoded(kind: str, **fields: Any) -> bytes:
    data: bytes = _CLASSES[kind](**fields).SerializeToString()
    return data


# --- descriptors ---


def _describe(message: Any, name: str, kind: str, number: int) -> None:
    """Add one field to *message*, a DescriptorProto."""
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind == "map<string, string>":
        # On the wire a map is a list of entries, each a message of its own; this is how descriptors say so.
        entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
        entry.options.map_entry = True
        _describe(entry, "key", "string", 1)
        _describe(entry, "value", "string", 2)
        kind = f"repeated {message.name}.{entry.name}"
    if kind.startswith("repeated "):
        field.label = _Field.LABEL_REPEATED
        kind = kind.removeprefix("repeated ")
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


def _classes() -> Mapping[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="externalscaler.proto", package=PACKAGE, syntax="proto3")
    for kind, fields in _MESSAGES.items():
        message = file.message_type.add(name=kind)
        for name, (type_, number) in fields.items():
            _describe(message, name, type_, number)
    # A pool of its own: in the common one, somebody's generated code of the same package would be in the way.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        kind: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{kind}")) for kind in _MESSAGES
    }


_CLASSES = _classes()
