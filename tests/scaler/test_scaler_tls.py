"""Both doors behind TLS, with a certificate that is renewed while they are open."""

from __future__ import annotations

import grpc
import httpx
import pytest
from keda_client import Keda
from scaler_running import cooking

from certificates import make_certificate, trusting
from dumbwaiter.config import ScalerSettings
from dumbwaiter.errors import ConfigError
from dumbwaiter.scaler import run
from dumbwaiter.scaler.certificate import certificate_of
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def pair(tmp_path):
    certfile, keyfile = make_certificate(tmp_path)
    return {"certfile": str(certfile), "keyfile": str(keyfile)}


async def status(kitchen, certfile):
    async with httpx.AsyncClient(verify=trusting(certfile), trust_env=False) as client:
        return (await client.get(kitchen.url("/v1/scale/cats"))).status_code


async def test_both_doors_show_the_certificate(pair, tmp_path):
    async with cooking(f"sqlite:{tmp_path}/queue.db", tmp_path, **pair) as kitchen:
        assert kitchen.doors.tls
        assert await status(kitchen, pair["certfile"]) == 200
        trusted = (tmp_path / "own.crt").read_bytes()
        async with Keda(kitchen.doors.grpc_port, trusted=trusted) as keda:
            assert not await keda.is_active(model="cats")
        async with Keda(kitchen.doors.grpc_port) as keda:
            with pytest.raises(grpc.aio.AioRpcError):
                await keda.is_active(model="cats")


async def test_a_renewed_certificate_is_taken_by_both_doors_and_a_broken_one_by_none(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RENEW_EVERY", 0.02)
    async with cooking(f"sqlite:{tmp_path}/queue.db", tmp_path, **pair) as kitchen:
        (tmp_path / "next").mkdir()
        certfile, keyfile = make_certificate(tmp_path / "next")
        (tmp_path / "own.key").write_bytes(keyfile.read_bytes())  # for a moment they do not fit

        said = []

        async def renewed():
            try:
                return await status(kitchen, certfile) == 200
            except httpx.ConnectError as error:
                said.append(str(error))  # the former one is still shown, and whole
                (tmp_path / "own.crt").write_bytes(certfile.read_bytes())
                return False

        await eventually(renewed)
        assert said
        assert all("CERTIFICATE_VERIFY_FAILED" in text for text in said), said
        async with Keda(kitchen.doors.grpc_port, trusted=certfile.read_bytes()) as keda:
            assert not await keda.is_active(model="cats")


def test_half_of_a_certificate_is_refused(pair):
    with pytest.raises(ConfigError, match=r"scaler\.keyfile is not set$"):
        certificate_of(ScalerSettings(certfile=pair["certfile"]))
    with pytest.raises(ConfigError, match=r"scaler\.certfile is not set$"):
        certificate_of(ScalerSettings(keyfile=pair["keyfile"]))


def test_files_that_cannot_be_used_are_refused_with_the_reason(pair, tmp_path):
    with pytest.raises(ConfigError, match=r"^scaler\.keyfile: cannot read /no/such/file: No such file"):
        certificate_of(ScalerSettings(certfile=pair["certfile"], keyfile="/no/such/file"))
    with pytest.raises(ConfigError, match=r"^scaler\.certfile: .* are no certificate and its private key, in PEM"):
        certificate_of(ScalerSettings(certfile=pair["certfile"], keyfile=pair["certfile"]))
    (tmp_path / "locked").mkdir()
    certfile, keyfile = make_certificate(tmp_path / "locked", passphrase="swordfish")
    with pytest.raises(ConfigError, match=r"the key has a password, and a server that starts by itself"):
        certificate_of(ScalerSettings(certfile=str(certfile), keyfile=str(keyfile)))


def test_without_files_there_is_no_tls():
    assert certificate_of(ScalerSettings()) is None
