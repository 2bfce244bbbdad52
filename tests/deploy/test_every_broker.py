"""No adapter is forgotten: each way to deploy knows every broker, or says by name that it cannot."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
from one_machine import settings as on_one_machine
from projects import project

from dumbwaiter.brokers import ADAPTERS
from dumbwaiter.brokers.products import product_of
from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.compose import compose_project_of
from dumbwaiter.deploy.compose.project import BROKERS
from dumbwaiter.deploy.kubernetes import secrets
from dumbwaiter.deploy.kubernetes.triggers import NATIVE, UNREADABLE
from dumbwaiter.deploy.requirements import EXTRAS
from dumbwaiter.deploy.systemd.units import SERVERS
from dumbwaiter.errors import ConfigError

SHARED = [scheme for scheme in ADAPTERS if not product_of(scheme).on_one_machine]


def url(scheme):
    return f"{scheme}://eu-central-1" if scheme == "sqs" else f"{scheme}://kitchen"


@pytest.mark.parametrize("scheme", SHARED)
def test_an_image_has_the_client_of_each(scheme):
    assert scheme in EXTRAS


@pytest.mark.parametrize("scheme", ADAPTERS)
def test_compose_runs_it_or_says_which_it_runs(scheme):
    if scheme in {"memory", "sqlite", "redis", "rediss", "valkey", "amqp", "amqps"}:
        wanted = "rabbitmq" if scheme.startswith("amqp") else "redis"
        assert compose_project_of(on_one_machine(f"{scheme}:"), "kitchen:1").broker == wanted
    else:
        with pytest.raises(ConfigError, match="say --broker redis or --broker rabbitmq"):
            compose_project_of(on_one_machine(url(scheme)), "kitchen:1")
        assert product_of(scheme).name not in BROKERS


@pytest.mark.parametrize("scheme", SHARED)
def test_units_start_behind_it_unless_it_is_a_cloud_s(scheme):
    assert (product_of(scheme).name in SERVERS) is (product_of(scheme).cloud is None)


@pytest.mark.parametrize("scheme", ADAPTERS)
def test_pods_share_it_or_it_is_refused(scheme):
    if scheme in SHARED:
        project(url(scheme))
    else:
        with pytest.raises(ConfigError, match="which the pods of a cluster cannot share"):
            project(f"{scheme}:")


@pytest.mark.parametrize("scheme", SHARED)
def test_keda_counts_it_itself_or_we_say_why_not(scheme):
    assert (scheme in NATIVE) is not (scheme in UNREADABLE)


@pytest.mark.parametrize("scheme", SHARED)
def test_its_address_is_open_only_where_it_can_have_no_password_or_an_identity_gets_in(scheme):
    product = product_of(scheme)
    assert secrets.hides_broker(project(url(scheme))) is product.has_password
    for identity in get_args(get_type_hints(KubernetesSettings)["identity"]):
        of = project(url(scheme), identity=identity)
        assert secrets.hides_broker(of) is (product.has_password and product.cloud != identity)


@pytest.mark.parametrize("scheme", SHARED)
def test_a_cloud_s_keys_come_from_the_secret_where_neither_url_nor_identity_has_them(scheme):
    cloud = product_of(scheme).cloud
    of = project(url(scheme), blobs="file:/blobs", storage="blobs")
    wanted = {entry.key for entry in secrets.entries(of)} - {secrets.BROKER}
    keys = {"aws": set(secrets.KEYS["aws"]), "gcp": {secrets.GOOGLE_FILE}}
    assert wanted == (set() if product_of(scheme).has_password else keys[cloud])
    if cloud is not None:
        assert not {
            entry.key
            for entry in secrets.entries(project(url(scheme), blobs="file:/blobs", storage="b", identity=cloud))
        }
