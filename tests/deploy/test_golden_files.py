"""Renderings as they are, to be read: RENEW_GOLDEN=1 pytest tests/deploy/test_golden_files.py writes them anew."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
from projects import only_model, project

from dumbwaiter.config import ScalingSettings
from dumbwaiter.deploy import helm
from dumbwaiter.deploy.kubernetes.files import files as kubernetes_files
from dumbwaiter.deploy.models import Measured
from dumbwaiter.deploy.writing import write

GOLDEN = pathlib.Path(__file__).parent / "golden"
MEASURED = {"resnet": Measured(load_seconds=14.0, start_seconds=1.5, long_batch=3.2)}
CASES = {
    "rabbitmq-push-exclusive": lambda: project(
        "rabbitmq",
        measured=MEASURED,
        host="api.example.com",
        tls_secret="api-tls",
        gateway_max_replicas=6,
        gateway_from=["ingress-nginx"],
        node_selector=["cloud.google.com/gke-spot=true"],
        tolerations=["cloud.google.com/gke-spot=true:NoSchedule"],
        notice=25.0,
    ),
    "redis-native-shared": lambda: project("redis", measured=MEASURED, trigger="native", gpu="shared", containers=2),
    "sqs-metrics-mig-identity": lambda: project(
        "sqs",
        trigger="metrics-api",
        gpu="mig",
        mig_profile="1g.10gb",
        identity="aws",
        role="arn:aws:iam::123456789012:role/kitchen",
        models=only_model(scaling=ScalingSettings(max_replicas=3, min_replicas=1)),
    ),
}
RENDERERS = {"kubernetes": kubernetes_files, "chart": helm.files}
ALL = [(case, "kubernetes") for case in CASES] + [("rabbitmq-push-exclusive", "chart")]


@pytest.mark.parametrize(("case", "renderer"), ALL, ids=map("-".join, ALL))
def test_is_rendered_as_it_was(case, renderer):
    folder = GOLDEN / (case if renderer == "kubernetes" else f"{case}-chart")
    wanted = RENDERERS[renderer](CASES[case]())
    if os.environ.get("RENEW_GOLDEN"):
        shutil.rmtree(folder, ignore_errors=True)
        write(folder, wanted)
    changes = [change for change in write(folder, wanted, check=True) if change.kind != "same"]
    assert not changes, f"look at them, and if they are meant: RENEW_GOLDEN=1 pytest {__file__}"


def test_every_folder_belongs_to_a_case():
    expected = {case if renderer == "kubernetes" else f"{case}-chart" for case, renderer in ALL}
    assert {path.name for path in GOLDEN.iterdir()} == expected
