"""What each product is, for whoever renders the place where it runs: data, read without any client library. Pure.

An adapter cannot say this itself, for to load it takes its client. The schemes of a product are those of its adapter.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dumbwaiter.brokers import ADAPTERS


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """*name* is that of its adapter's package; of one of another distribution nothing is known, not even that."""

    name: str = ""
    extra: str | None = None
    """The extra that installs its client; None where it needs none."""
    cloud: Literal["aws", "azure", "gcp"] | None = None
    """Whose service it is, and so whose identities get in."""
    has_password: bool = True
    """Its URL may have one. Otherwise keys are the cloud's, and come from elsewhere."""
    on_one_machine: str | None = None
    """What it is in words, where no other machine can share it."""


PRODUCTS = {
    product.name: product
    for product in (
        Product(name="memory", on_one_machine="one process's memory"),
        Product(name="sqlite", on_one_machine="a file"),
        Product(name="redis", extra="redis"),
        Product(name="nats", extra="nats"),
        Product(name="rabbitmq", extra="rabbitmq"),
        Product(name="sqs", extra="sqs", cloud="aws", has_password=False),
        Product(name="kafka", extra="kafka"),
        Product(name="pubsub", extra="pubsub", cloud="gcp", has_password=False),
        Product(name="servicebus", extra="servicebus", cloud="azure"),
        Product(name="pulsar", extra="pulsar"),
    )
}
_OF_OTHERS = Product()


def product_of(url: str) -> Product:
    """That of *url*, or of a scheme alone."""
    adapter = ADAPTERS.get(url.partition(":")[0])
    return PRODUCTS[adapter.partition(":")[0].rpartition(".")[2]] if adapter else _OF_OTHERS
