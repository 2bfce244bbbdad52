"""Whatever number the settings take, Kubernetes and KEDA can count so far."""

from __future__ import annotations

import pytest
from projects import BROKERS, SCALING
from schemas import check, keda_folder

from dumbwaiter.config import load_settings
from dumbwaiter.deploy.kubernetes import project_of, rendered, times
from dumbwaiter.deploy.models import Measured

LONGEST = Measured(load_seconds=4 * 3600.0, start_seconds=4 * 3600.0, long_batch=365 * 86_400.0)


def at_its_ends(folder, trigger):
    """A project with the largest number that each setting takes."""
    file = folder / "dumbwaiter.toml"
    file.write_text(f"""
        broker = "{BROKERS["rabbitmq"]}"
        blobs = "s3://kitchen"
        [gateway]
        grace = "365d"
        [courier]
        grace = "365d"
        [worker]
        grace = "365d"
        load_timeout = "365d"
        [scaling]
        max_replicas = 10000
        scale_in_after = "365d"
        idle_after = "365d"
        [kubernetes]
        image = "registry.example.com/kitchen:1"
        trigger = "{trigger}"
        polling_interval = "365d"
        boot = "365d"
        fallback_replicas = 10000
        gateway_replicas = 10000
        gateway_max_replicas = 10000
        courier_replicas = 10000
        gpus = 1000
        worker_cpu = "999999"
        worker_memory = "1024TiB"
        worker_scratch = "1024TiB"
        [models.resnet]
        target = "network:Infer"
        timeout = "365d"
        [models.told]
        target = "network:Infer"
        scaling = {{ cold_start = "365d", min_replicas = 10000 }}
    """)
    return project_of(load_settings(file, environ={}), dict.fromkeys(("resnet", "told"), LONGEST))


@pytest.mark.parametrize("trigger", SCALING)
def test_the_largest_numbers_are_rendered_as_ones_that_a_cluster_takes(tmp_path, trigger):
    keda_folder()
    for each in rendered(at_its_ends(tmp_path, trigger)):
        check(each.object)


def test_what_is_made_of_them_fits_into_32_bits(tmp_path):
    of = at_its_ends(tmp_path, "external-push")
    for model in of.models:
        keda = times.of_keda(of, model)
        made = (keda.polling_interval, keda.cooldown, times.first_cooldown(of, model))
        assert max(*made, times.progress_deadline(of, model, of.settings.worker.load_timeout)) < 2**31
