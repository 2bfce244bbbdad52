from __future__ import annotations

import sys

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import MissingExtraError


@pytest.mark.parametrize("package", ["aiobotocore", "botocore", "aiohttp"])
def test_a_client_library_that_is_missing_is_named_with_its_extra(package, monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == package or name.startswith("dumbwaiter.brokers.sqs"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        open_broker("sqs://eu-central-1")
    assert (caught.value.package, caught.value.extra) == (package, "sqs")
