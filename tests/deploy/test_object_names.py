"""Models keep their names where Kubernetes takes them, and no two get one."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.deploy.kubernetes.naming import labels
from dumbwaiter.deploy.models import object_name

models = st.from_regex(r"[A-Za-z0-9._-]{1,80}", fullmatch=True)


@given(models)
def test_a_name_is_one_that_a_deployment_and_its_pods_may_have(model):
    name = f"worker-{object_name(model)}"
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 63 - len("-5d4f8c7b9d")


@given(models, models)
def test_two_models_never_share_one(first, second):
    assert (object_name(first) == object_name(second)) is (first == second)


@given(models)
def test_labels_are_ones_that_kubernetes_takes(model):
    for value in labels("worker", model).values():
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value)


def test_a_good_name_stays():
    assert object_name("text-embedding") == "text-embedding"
    assert object_name("Text.Embedding").startswith("text-embedding-")
