"""The policy's expressions, evaluated: a worker changes what ending its own pod would cost, and nothing else."""

from __future__ import annotations

import copy
import json

import celpy
import pytest
from projects import project

from dumbwaiter.deploy.kubernetes import accounts
from dumbwaiter.worker.pod_cost import ANNOTATION

WORKER = "system:serviceaccount:dumbwaiter:worker"
POD = {
    "metadata": {
        "name": "worker-1",
        "labels": {"app": "x"},
        "ownerReferences": [{"name": "set"}],
        "annotations": {"k": "v"},
    },
    "spec": {"containers": [{"image": "kitchen"}]},
}


def refused(before, after, *, pod="worker-1", user=WORKER):
    """What is said against the change from *before* to *after* by a worker in *pod*; None where nobody looks."""
    spec = accounts.policy(project())["spec"]
    extra = {"authentication.kubernetes.io/pod-name": [pod]} if pod else {}
    given = {
        "request": {"name": "worker-1", "userInfo": {"username": user, "extra": extra}},
        "object": after,
        "oldObject": before,
    }
    environment = celpy.Environment()

    def value(expression, **more):
        program = environment.program(environment.compile(expression))
        return program.evaluate({name: celpy.json_to_cel(one) for name, one in {**given, **more}.items()})

    if not all(bool(value(each["expression"])) for each in spec["matchConditions"]):
        return None
    encoder = celpy.CELJSONEncoder
    variables = {
        each["name"]: json.loads(json.dumps(value(each["expression"]), cls=encoder)) for each in spec["variables"]
    }
    return [each["message"] for each in spec["validations"] if not bool(value(each["expression"], variables=variables))]


def changed(change, base=POD):
    after = copy.deepcopy(base)
    change(after)
    return after


def cost(seconds):
    return lambda one: one["metadata"].setdefault("annotations", {}).update({ANNOTATION: seconds})


def test_a_cost_may_be_set_changed_and_removed():
    with_cost = changed(cost("5"))
    assert refused(POD, with_cost) == []
    assert refused(with_cost, changed(cost("6"))) == []
    assert refused(with_cost, POD) == []


def test_a_pod_without_annotations_may_get_one():
    bare = changed(lambda one: one["metadata"].pop("annotations"))
    assert refused(bare, changed(cost("5"), bare)) == []


@pytest.mark.parametrize("pod", ["worker-2", None])
def test_another_pod_may_not_be_touched(pod):
    assert refused(POD, changed(cost("5")), pod=pod)


CHANGES = {
    "its image": lambda one: one["spec"]["containers"][0].update(image="evil"),
    "a label": lambda one: one["metadata"]["labels"].update(app="y"),
    "its owner": lambda one: one["metadata"].update(ownerReferences=[]),
    "a finalizer": lambda one: one["metadata"].update(finalizers=["evil.example.com/never"]),
    "a new annotation": lambda one: one["metadata"]["annotations"].update(z="1"),
    "an old annotation": lambda one: one["metadata"]["annotations"].update(k="w"),
    "an annotation's end": lambda one: one["metadata"]["annotations"].pop("k"),
    "all annotations' end": lambda one: one["metadata"].pop("annotations"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_else_may_be_changed(what):
    assert refused(POD, changed(CHANGES[what]))


def test_a_finalizer_of_somebody_else_may_neither_go_nor_be_in_the_way():
    kept = changed(lambda one: one["metadata"].update(finalizers=["somebody.example.com/waits"]))
    assert refused(kept, POD)
    assert refused(kept, changed(cost("5"), kept)) == []


def test_nobody_else_is_meant():
    assert refused(POD, changed(CHANGES["its image"]), user="system:node:a") is None
