"""Blob stores by URL: no error shows a password."""

from __future__ import annotations

import pytest

from dumbwaiter.blobs import open_store, shown
from dumbwaiter.errors import BlobError, ConfigError

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "url", ["attic://user:s3cret@host/x", "file://user:s3cret@host/x", "s3://user:s3cret@?x=s3cret"]
)
async def test_a_url_that_names_no_store_is_refused_without_its_password(url):
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "s3cret" not in str(caught.value)
    assert shown(url) in str(caught.value)


async def test_a_store_that_fails_is_named_without_its_password(monkeypatch):
    for name, value in {"ENDPOINT": "http://127.0.0.1:9", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises((BlobError, ConfigError)) as caught:
        await open_store("s3://user:s3cret@bucket/x?token=s3cret").get("a")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "step"),
    [
        ("s3://", "write s3://bucket/prefix"),
        ("az://", "write az://container/prefix"),
        ("az://kitchen", "set AZURE_STORAGE_ACCOUNT_NAME"),
        ("attic", "if a folder is meant, write file:attic"),
        ("/var/attic", "if a folder is meant, write file:/var/attic"),
    ],
)
async def test_a_url_that_lacks_something_is_refused_with_what_to_write(monkeypatch, url, step):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert step in str(caught.value)
