"""The files that brokers' URLs name for TLS are looked at before anything is connected, by every adapter alike."""

from __future__ import annotations

import pytest

from certificates import make_certificate
from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import ConfigError

ADDRESSES = [
    ("rediss://host?", "ca_certs", None),
    ("amqps://host?", "ca_certs", None),
    ("pulsar+ssl://host?", "ca_certs", ("cert", "key")),
    ("kafka://host?security=ssl&", "tls_ca", ("tls_cert", "tls_key")),
]
WITH_OWN = [(start, own) for start, _, own in ADDRESSES if own is not None]


@pytest.mark.parametrize(("start", "trusted"), [(start, trusted) for start, trusted, _ in ADDRESSES])
def test_certificates_to_trust_that_cannot_be_read_are_named_with_their_option(start, trusted, tmp_path, certificate):
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("no certificate")
    url = start.replace("//", "//user:s3cret@")
    for path, reason in ((tmp_path / "nowhere.pem", "No such file"), (nothing, "it is none")):
        with pytest.raises(
            ConfigError, match=f"cannot read {trusted}='{path}' of .*: {reason}.*; name a PEM"
        ) as caught:
            open_broker(f"{url}{trusted}={path}")
        assert "s3cret" not in str(caught.value)
    open_broker(f"{url}{trusted}={certificate[0]}")


@pytest.mark.parametrize(("start", "own"), WITH_OWN)
def test_our_own_certificate_and_its_key_are_looked_at_too(start, own, tmp_path, certificate):
    cert, key = own
    file, its_key = certificate
    open_broker(f"{start}{cert}={file}&{key}={its_key}")
    with pytest.raises(ConfigError, match=f"cannot read {cert}='/nowhere' of .*: No such file"):
        open_broker(f"{start}{cert}=/nowhere&{key}={its_key}")
    with pytest.raises(ConfigError, match=f"cannot read {key}='/nowhere' of .*: No such file"):
        open_broker(f"{start}{cert}={file}&{key}=/nowhere")
    _, others = make_certificate(tmp_path, "other")
    with pytest.raises(ConfigError, match=f"cannot read {key}='{others}' of .*that belongs to the certificate"):
        open_broker(f"{start}{cert}={file}&{key}={others}")


@pytest.mark.parametrize(("start", "own"), WITH_OWN)
def test_a_key_with_a_passphrase_is_refused_rather_than_asked_for(start, own, tmp_path):
    file, key = make_certificate(tmp_path, "locked", passphrase="open sesame")
    with pytest.raises(ConfigError, match=f"cannot read {own[1]}=.*without a passphrase"):
        open_broker(f"{start}{own[0]}={file}&{own[1]}={key}")


def test_kafka_takes_a_folder_of_certificates_too(tmp_path):
    open_broker(f"kafka://host?security=ssl&tls_ca={tmp_path}")
    with pytest.raises(ConfigError, match="ca_certs"):
        open_broker(f"rediss://host?ca_certs={tmp_path}")
