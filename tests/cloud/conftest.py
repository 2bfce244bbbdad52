"""One shop for all tests of this folder."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from cloud_running import Shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop, None, None]:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    try:
        shop.wait_ready()
        yield shop
    finally:
        shop.close()
