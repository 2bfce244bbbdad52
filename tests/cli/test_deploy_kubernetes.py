"""`dumbwaiter deploy kubernetes` and `deploy helm` in a project's folder."""

from __future__ import annotations

import asyncio
import functools
import os

import pytest
import yaml

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.profiles import ServiceProfile, add_to_profile
from http_servers import always, response, serving

SETTINGS = """
[kubernetes]
image = "registry.example.com/kitchen:1.4"
blobs = "s3://kitchen"
broker = "amqp://chef:hunter2@rabbit"

[models.shout]
target = "light:Shout"
scaling.max_replicas = 3
"""


@pytest.fixture
def settled(project):
    (project / "dumbwaiter.toml").write_text(SETTINGS)
    return project


def deploy(run, *arguments):
    return run("deploy", *arguments, "--unmeasured")


def test_a_folder_is_written_that_kubectl_takes(run, settled):
    done = deploy(run, "kubernetes")
    assert done.returncode == 0, done.stderr
    assert "next: cd kubernetes, and do what README.md says (in the end: kubectl apply -k .)" in done.stdout
    folder = settled / "kubernetes"
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in folder.iterdir()} == {
        *resources,
        "kustomization.yaml",
        "secret.example.yaml",
        "README.md",
        ".gitignore",
    }
    assert not any("hunter2" in path.read_text() for path in folder.iterdir())


def test_a_check_tells_what_would_change_by_its_exit_code(run, settled):
    done = deploy(run, "kubernetes", "--check")
    assert (done.returncode, (settled / "kubernetes").exists()) == (1, False)
    assert deploy(run, "kubernetes").returncode == 0
    assert deploy(run, "kubernetes", "--check").returncode == 0
    (settled / "dumbwaiter.toml").write_text(SETTINGS + "replicas = 2\n")
    done = deploy(run, "kubernetes", "--check")
    assert done.returncode == 1
    assert "config-map-settings.yaml" in done.stdout


def test_flags_say_what_the_cluster_uses(run, settled):
    flags = ("--broker", "redis://redis", "--image", "other:2", "--namespace", "elsewhere", "--output", "out")
    assert deploy(run, "kubernetes", *flags).returncode == 0
    worker = yaml.safe_load((settled / "out/deployment-worker-shout.yaml").read_text())
    assert worker["metadata"]["namespace"] == "elsewhere"
    assert worker["spec"]["template"]["spec"]["containers"][0]["image"] == "other:2"
    assert "redis://redis" in (settled / "out/secret.example.yaml").read_text()


def test_files_of_others_stop_it(run, settled):
    (settled / "kubernetes").mkdir()
    (settled / "kubernetes" / "README.md").write_text("mine\n")
    done = deploy(run, "kubernetes")
    assert done.returncode == 2
    assert "README.md" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_chart_is_written_that_helm_takes(run, settled):
    done = deploy(run, "helm")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((settled / "chart/Chart.yaml").read_text())["apiVersion"] == "v2"
    assert "shout" in yaml.safe_load((settled / "chart/values.yaml").read_text())["models"]
    assert deploy(run, "helm", "--check").returncode == 0


@pytest.mark.anyio
async def test_what_workers_have_measured_is_used(run, settled):
    store = f"file:{settled}/measured"
    profile = ServiceProfile(model="shout", load_seconds=400.0, start_seconds=1.0)
    await add_to_profile(open_store(store), profile, 0.0)
    flags = ("--blobs", store)
    settings = SETTINGS.replace('blobs = "s3://kitchen"\n', 'storage = "blobs"\n')
    (settled / "dumbwaiter.toml").write_text(settings)
    done = run("deploy", "kubernetes", *flags)
    assert done.returncode == 0, done.stderr
    scaled = yaml.safe_load((settled / "kubernetes/scaled-object-worker-shout.yaml").read_text())["spec"]
    assert scaled["cooldownPeriod"] == 120 + 401  # the node and its image, and what was measured


def test_a_store_that_cannot_be_asked_is_told_with_what_to_do(run, settled):
    (settled / "not-a-folder").write_text("x")
    settings = SETTINGS.replace('blobs = "s3://kitchen"\n', 'storage = "blobs"\n')
    (settled / "dumbwaiter.toml").write_text(settings)
    done = run("deploy", "kubernetes", "--blobs", f"file:{settled}/not-a-folder/x")
    assert done.returncode == 1
    assert "--unmeasured" in done.stderr


@pytest.fixture
def nobody(monkeypatch):
    """Whoever has no credentials of any cloud."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)


@pytest.mark.anyio
async def test_what_is_missing_here_comes_first_where_a_store_cannot_be_asked(run, settled, nobody):
    async with serving(always(response(403, b"no"))) as machine:
        ask = functools.partial(run, "deploy", "kubernetes", AWS_METADATA_ENDPOINT=machine.url())
        done = await asyncio.to_thread(ask)
    assert done.returncode == 1
    assert done.stderr.startswith("dumbwaiter: error: AWS_ACCESS_KEY_ID is not set here, and s3://kitchen cannot be")
    assert "set it (docs/stores.md), or say --unmeasured" in done.stderr
    assert not (settled / "kubernetes").exists()


def test_so_it_does_where_not_even_an_account_is_known(run, settled, nobody):
    done = run("deploy", "kubernetes", "--blobs", "az://kitchen/blobs")
    assert done.returncode == 1
    assert done.stderr.startswith("dumbwaiter: error: AZURE_STORAGE_ACCOUNT_NAME is not set here, and az://kitchen")


@pytest.mark.anyio
async def test_who_has_credentials_is_told_what_the_store_says(run, settled, nobody):
    async with serving(always(response(403, b"no"))) as store:
        known = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_ALLOW_HTTP": "true"}
        ask = functools.partial(run, "deploy", "kubernetes", AWS_ENDPOINT=store.url(), **known)
        done = await asyncio.to_thread(ask)
    assert done.stderr.startswith("dumbwaiter: error: s3://kitchen cannot be asked what workers have measured; say")
    assert "403" in done.stderr


def test_a_broker_of_one_machine_is_refused_with_what_to_write(run, settled):
    (settled / "dumbwaiter.toml").write_text(SETTINGS.replace('broker = "amqp://chef:hunter2@rabbit"\n', ""))
    done = deploy(run, "kubernetes")
    assert done.returncode == 2
    assert "kubernetes.broker" in done.stderr


def test_a_word_that_people_try_is_understood(run):
    assert "did you mean 'kubernetes'" in run("deploy", "k8s").stderr
