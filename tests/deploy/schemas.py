"""Strict validation of rendered objects: Kubernetes' own schemas, and those of KEDA where they are at hand."""

from __future__ import annotations

import copy
import functools
import json
import os
import pathlib
import re

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

NEWEST, WITH_CLAIMS, OLDEST = "1.37", "1.34", "1.30"
"""Releases of Kubernetes against whose schemas is checked; what claims a GPU is there since the second."""
_KEDA = ("keda.sh_scaledobjects.yaml", "keda.sh_triggerauthentications.yaml", "scalers-schema.json")
_BESIDE = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "keda"
#: Parameters that KEDA reads by a part of its code that the generator of the schema passes over.
_LEFT_OUT = {"pulsar": {"authModes"}}


NUMBERS = jsonschema.FormatChecker(formats=())
"""How far Kubernetes can count. Validators pass over such formats unless they are told."""


@NUMBERS.checks("int32")
def is_int32(found):
    return not isinstance(found, int) or -(2**31) <= found < 2**31


@NUMBERS.checks("int64")
def is_int64(found):
    return not isinstance(found, int) or -(2**63) <= found < 2**63


class InvalidError(Exception):
    """An object that Kubernetes or KEDA would refuse, or of which it would pass something over."""


def keda_folder():
    """Where KEDA's schemas lie; a test that needs them is skipped where they are not."""
    folder = pathlib.Path(os.environ.get("TESTS_KEDA_SCHEMAS") or _BESIDE)
    if not all((folder / name).is_file() for name in _KEDA):
        pytest.skip(
            "RULE NOT CHECKED: KEDA's schemas are not here; put config/crd/bases/*.yaml and"
            " schema/generated/scalers-schema.json of kedacore/keda v2.20.2 into one folder, and name it in"
            " TESTS_KEDA_SCHEMAS"
        )
    return folder


def check(found):
    """Raise InvalidError for what is wrong with one object."""
    _check(json.dumps(found, sort_keys=True))


@functools.lru_cache(maxsize=10_000)
def _check(text):
    found = json.loads(text)
    if found["apiVersion"].startswith("keda.sh/"):
        _check_keda(found)
    elif not found["apiVersion"].startswith("kustomize."):
        is_claiming = found["kind"] == "ResourceClaimTemplate" or "resourceClaimTemplateName" in text
        for version in (NEWEST, WITH_CLAIMS if is_claiming else OLDEST):
            try:
                kubernetes_validate.validate(found, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise InvalidError(f"{error.message} at {'.'.join(map(str, error.path))}") from error
            _raise_first(_counting_validator(found["kind"], found["apiVersion"], version), found)


def _raise_first(validator, found):
    for error in validator.iter_errors(found):
        raise InvalidError(f"{error.message} at {'.'.join(map(str, error.path))}")


@functools.cache
def _counting_validator(kind, api, version):
    """What kubernetes_validate passes over: how far numbers may go, and lists whose members have names of their own."""
    group, _, rest = api.rpartition("/")
    name = "-".join(filter(None, [kind.lower(), group.partition(".")[0], rest]))
    return _Counting(_schema(f"{name}.json", version), registry=_definitions(version), format_checker=NUMBERS)


def _schema(name, version):
    return schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/{name}", version)


@functools.cache
def _definitions(version):
    return Resource.from_contents(_schema("_definitions.json", version)) @ Registry()


def _once_each(_validator, keys, found, _schema):
    seen = [tuple(one.get(key) for key in keys) for one in found or []]
    for one in seen:
        if seen.count(one) > 1:
            yield jsonschema.ValidationError(f"{one} is there {seen.count(one)} times")


_Counting = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"x-kubernetes-list-map-keys": _once_each})


def _check_keda(found):
    _raise_first(_keda_validator(found["kind"]), found)
    if found["kind"] != "ScaledObject":
        return
    spec = found["spec"]
    if spec.get("minReplicaCount", 0) > spec.get("maxReplicaCount", 100):  # a rule of the CRD's, in CEL
        raise InvalidError("minReplicaCount is more than maxReplicaCount")
    for trigger in spec["triggers"]:
        _check_trigger(trigger)


def _check_trigger(trigger):
    known = _scalers().get(trigger["type"])
    if known is None:
        raise InvalidError(f"KEDA has no trigger {trigger['type']!r}")
    for name, value in trigger["metadata"].items():
        parameter = known.get(name) or known.get(name.removesuffix("FromEnv"))
        if parameter is None:
            # What an external scaler is told besides is its own business.
            if not trigger["type"].startswith("external") and name not in _LEFT_OUT.get(trigger["type"], ()):
                raise InvalidError(f"{trigger['type']} knows no {name!r}")
        elif not isinstance(value, str):
            raise InvalidError(f"{name} is no text")
        elif value not in parameter.get("allowedValue", [value]):
            raise InvalidError(f"{name} is {value!r}, not one of {parameter['allowedValue']}")
        elif parameter.get("deprecated"):
            raise InvalidError(f"{name}: {parameter['deprecated']}")
    for name, parameter in known.items():
        by_authentication = parameter.get("triggerAuthenticationVariableReadable")
        is_given = name in trigger["metadata"] or f"{name}FromEnv" in trigger["metadata"]
        if not parameter.get("optional") and "default" not in parameter and not is_given and not by_authentication:
            raise InvalidError(f"{trigger['type']} needs {name}")


@functools.cache
def _scalers():
    tree = json.loads((keda_folder() / "scalers-schema.json").read_text())
    return {one["type"]: {each["name"]: each for each in one["parameters"]} for one in tree["scalers"]}


@functools.cache
def _keda_validator(kind):
    name = f"keda.sh_{kind.lower()}s.yaml"
    crd = yaml.safe_load((keda_folder() / name).read_text())
    (version,) = [one for one in crd["spec"]["versions"] if one["name"] == "v1alpha1"]
    schema = _strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
    schema["properties"]["metadata"] = {"type": "object"}  # a CRD says nothing of it; Kubernetes does
    return jsonschema.Draft7Validator(schema, format_checker=NUMBERS)


def _strict(schema):
    """*schema*, which allows no property that it does not name, and no number where a text is wanted."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items()}
    if isinstance(strict.get("properties"), dict) and "additionalProperties" not in strict and "type" in strict:
        strict["additionalProperties"] = False
    return strict


def is_object_name(name):
    """Whether *name* is one that any object may have."""
    return re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name) is not None
