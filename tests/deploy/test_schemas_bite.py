"""Mistakes that people make in such objects are found by the validation of these tests."""

from __future__ import annotations

import copy

import pytest
from projects import combination
from schemas import InvalidError, check, keda_folder

from dumbwaiter.deploy.kubernetes import rendered


def first(kind):
    of = combination("redis", "native", "shared")
    return copy.deepcopy(next(each.object for each in rendered(of) if each.object["kind"] == kind))


def pod(found):
    return found["spec"]["template"]["spec"]


def trigger(found):
    return found["spec"]["triggers"][0]


def rename(table, before, after):
    table[after] = table.pop(before)


MISTAKES = {
    "a typo in a field": (
        "Deployment",
        lambda found: rename(pod(found), "terminationGracePeriodSeconds", "terminationGracePeriod"),
    ),
    "a number in words": ("Deployment", lambda found: found["spec"].update(replicas="two")),
    "more replicas than 32 bits count": ("Deployment", lambda found: found["spec"].update(replicas=2**31)),
    "a grace longer than 64 bits count": (
        "Deployment",
        lambda found: pod(found).update(terminationGracePeriodSeconds=2**63),
    ),
    "two variables of one name": (
        "Deployment",
        lambda found: pod(found)["containers"][0]["env"].append({"name": "HOME", "value": "/"}),
    ),
    "a probe that asks in no way that there is": (
        "Deployment",
        lambda found: pod(found)["containers"][0]["livenessProbe"].update(command=["true"]),
    ),
    "a verb beside the rules": ("Role", lambda found: found.update(verbs=["patch"])),
    "a claim without its device": (
        "ResourceClaimTemplate",
        lambda found: found["spec"]["spec"]["devices"]["requests"][0].update(deviceClassName="gpu.nvidia.com"),
    ),
    "more of KEDA's workers than 32 bits count": (
        "ScaledObject",
        lambda found: found["spec"].update(maxReplicaCount=3_000_000_000),
    ),
    "a pause of KEDA's longer than 32 bits count": (
        "ScaledObject",
        lambda found: found["spec"].update(cooldownPeriod=8_639_999_999_913_600),
    ),
    "an unknown field of KEDA's": ("ScaledObject", lambda found: found["spec"].update(cooldownPeriods=60)),
    "a behavior that there is not": (
        "ScaledObject",
        lambda found: found["spec"]["fallback"].update(behavior="never"),
    ),
    "a fallback without its replicas": ("ScaledObject", lambda found: found["spec"]["fallback"].pop("replicas")),
    "a number where KEDA wants a text": (
        "ScaledObject",
        lambda found: trigger(found)["metadata"].update(streamLength=5),
    ),
    "a typo in a trigger": ("ScaledObject", lambda found: trigger(found)["metadata"].update(queueLenght="5")),
    "a trigger that there is not": ("ScaledObject", lambda found: trigger(found).update(type="rabbit")),
    "a trigger without what it needs": ("ScaledObject", lambda found: trigger(found)["metadata"].pop("stream")),
    "bounds that cross": ("ScaledObject", lambda found: found["spec"].update(minReplicaCount=9)),
    "no triggers": ("ScaledObject", lambda found: found["spec"].update(triggers=[])),
    "keys in place of a key": (
        "TriggerAuthentication",
        lambda found: rename(found["spec"]["secretTargetRef"][0], "key", "keys"),
    ),
    "a provider that there is not": (
        "TriggerAuthentication",
        lambda found: found["spec"].update(podIdentity={"provider": "amazon"}),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_is_found(mistake):
    keda_folder()
    kind, make = MISTAKES[mistake]
    found = first(kind)
    check(found)
    make(found)
    with pytest.raises(InvalidError):
        check(found)
