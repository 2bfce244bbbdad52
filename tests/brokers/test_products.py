"""What each broker is, as data: complete, and true of its adapter."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import metadata

import pytest

from dumbwaiter.brokers import ADAPTERS, CLIENTS, open_broker
from dumbwaiter.brokers.products import PRODUCTS, product_of
from dumbwaiter.errors import ConfigError

SHARED = [scheme for scheme in ADAPTERS if not product_of(scheme).on_one_machine]


def test_every_adapter_is_of_a_product_and_every_product_has_one():
    assert {product_of(scheme).name for scheme in ADAPTERS} == PRODUCTS.keys()


def test_the_extras_are_those_that_there_are_and_each_brings_a_client():
    extras = {product.extra for product in PRODUCTS.values() if product.extra}
    assert extras == set(CLIENTS.values())
    assert extras <= set(metadata("dumbwaiter").get_all("Provides-Extra", []))


@pytest.mark.parametrize("scheme", [scheme for scheme in ADAPTERS if product_of(scheme).extra is None])
def test_an_adapter_without_an_extra_needs_no_client(scheme):
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(CLIENTS)})); "
        f"from dumbwaiter.brokers import open_broker; open_broker('{scheme}:x.db')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("scheme", SHARED)
def test_an_adapter_takes_a_password_in_its_url_where_its_product_has_one(scheme):
    url = f"{scheme}://chef:hunter2@kitchen.example.com"
    if product_of(url).has_password:
        open_broker(url)
    else:
        with pytest.raises(ConfigError, match="holds credentials, which must not stand there"):
            open_broker(url)


def test_of_what_another_distribution_brings_nothing_is_assumed_but_a_password():
    product = product_of("elsewhere://kitchen")
    assert (product.name, product.extra, product.cloud, product.on_one_machine) == ("", None, None, None)
    assert product.has_password


def test_no_client_is_loaded_to_read_it():
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(CLIENTS)})); "
        "from dumbwaiter.brokers.products import product_of; print(product_of('sqs://eu-central-1').cloud)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert ran.stdout == "aws\n", ran.stderr
