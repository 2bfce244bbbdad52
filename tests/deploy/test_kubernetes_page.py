"""docs/kubernetes.md says what is rendered."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
from typing import get_args, get_type_hints

from schemas import check, keda_folder

from dumbwaiter.config import KubernetesSettings, load_settings
from dumbwaiter.deploy.kubernetes import project_of, rendered
from dumbwaiter.deploy.kubernetes.triggers import NATIVE, UNREADABLE
from processes import run_in

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "kubernetes.md"


def test_its_example_is_one(tmp_path):
    keda_folder()
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "dumbwaiter.toml"
    file.write_text(example)
    found = [each.object for each in rendered(project_of(load_settings(file, environ={})))]
    assert {"ScaledObject", "Ingress"} <= {one["kind"] for one in found}
    for one in found:
        check(one)


def test_its_first_commands_run_without_credentials_of_the_store(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    text = PAGE.read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "dumbwaiter.toml").write_text(example)
    commands = re.findall(r"^dumbwaiter ([^#\n]*)", text, re.MULTILINE)
    assert [shlex.split(one)[:2] for one in commands] == [["deploy", "kubernetes"]] * 2
    for command in commands:
        done = run_in(tmp_path, *shlex.split(command))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "kubernetes/kustomization.yaml").exists()
    assert done.stdout == "kubernetes is up to date\n"


def test_it_tells_of_every_way():
    text = PAGE.read_text()
    for name in ("gpu", "trigger"):
        for way in get_args(get_type_hints(KubernetesSettings)[name]):
            assert f"| `{way}` |" in text, way


def test_it_tells_of_every_broker_with_a_trigger():
    names = {
        "amqp": "RabbitMQ",
        "kafka": "Kafka",
        "nats": "NATS",
        "pubsub": "Pub/Sub",
        "pulsar": "Pulsar",
        "redis": "Redis",
        "servicebus": "Service Bus",
        "sqs": "SQS",
    }
    schemes = {"amqp" if module == "rabbitmq" else module for module in NATIVE.values()} | set(UNREADABLE)
    assert schemes == set(names)
    for name in names.values():
        assert re.search(rf"^\| {name}", PAGE.read_text(), re.MULTILINE), name
