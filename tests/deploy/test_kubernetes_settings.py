"""What stands in [kubernetes] is what Kubernetes takes, or it is told where it stands wrong."""

from __future__ import annotations

import pytest

from dumbwaiter.config import load_settings
from dumbwaiter.errors import ConfigError


def load(folder, line):
    file = folder / "dumbwaiter.toml"
    file.write_text(f"[kubernetes]\n{line}\n")
    return load_settings(file, environ={}).kubernetes


@pytest.mark.parametrize(
    "line",
    [
        'namespace = "Kitchen"',
        'namespace = "a.b"',
        'secret = "a_b"',
        'host = "https://api.example.com"',
        'image = "kitchen latest"',
        'worker_cpu = "two"',
        'worker_cpu = "0"',
        "worker_memory = 0",
        'monitor = "rabbit:15672"',
        'mig_profile = "8g.80gb"',
        'node_ledgers = "relative"',
        'node_ledgers = "/"',
        'env = ["NO VALUE"]',
        'node_selector = ["spot"]',
        'tolerations = ["spot:NoShedule"]',
        'ingress_annotations = ["a"]',
        'gateway_from = ["Ingress"]',
        'gpu = "sharing"',
        'trigger = "push"',
        f'node_selector = ["{"k" * 90}=v"]',
        f'node_selector = ["{"p" * 254}/k=v"]',
        f'node_selector = ["k={"v" * 64}"]',
        f'tolerations = ["{"k" * 90}"]',
        f'tolerations = ["k={"v" * 64}:NoSchedule"]',
        f'ingress_annotations = ["example.com/{"k" * 64}=v"]',
        f'gpu_resource = "nvidia.com/{"k" * 64}"',
        f'secret = "{"a." * 127}a"',
        'env = ["POD=a", "POD=b"]',
        'node_selector = ["a=b", "a=c"]',
        'ingress_annotations = ["a=b", "c=d", "a=b"]',
        'worker_cpu = "1000000"',
        'worker_cpu = "9999999999m"',
        "containers = 0",
        "notice = 0",
    ],
)
def test_what_kubernetes_would_refuse_is_told_with_its_place(tmp_path, line):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, line)
    assert f"dumbwaiter.toml:2: kubernetes.{line.split(' =')[0]}" in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        'image = "registry.example.com:5000/kitchen@sha256:0123"',
        'host = "*.example.com"',
        'worker_cpu = "2.5"',
        'worker_cpu = "500m"',
        'mig_profile = "1g.10gb.me"',
        'node_selector = ["cloud.google.com/gke-accelerator=nvidia-l4", "empty="]',
        f'node_selector = ["{"p" * 60}.{"q" * 60}/{"k" * 63}={"v" * 63}"]',
        'tolerations = ["a=b:NoSchedule", "a=c:NoSchedule", "empty="]',
        'env = ["A=1", "a=2"]',
        'tolerations = ["spot", "spot:NoExecute", "a.b/c=d:PreferNoSchedule"]',
        'env = ["A=b=c", "EMPTY="]',
        'notice = "30s"',
        'monitor = "https://rabbit.example.com/base"',
    ],
)
def test_what_it_takes_is_taken(tmp_path, line):
    load(tmp_path, line)


def test_an_unknown_one_is_told_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'namespace'"):
        load(tmp_path, 'namespaces = "a"')
