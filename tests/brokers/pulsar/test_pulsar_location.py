from __future__ import annotations

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.pulsar.location import location_of
from dumbwaiter.errors import ConfigError


def test_a_host_is_enough():
    location = location_of("pulsar://pulsar.internal")
    assert location.service_url == "pulsar://pulsar.internal:6650"
    assert (location.tenant, location.namespace, location.prefix) == ("public", "default", "dumbwaiter")
    assert (location.token, location.admin, location.username) == (None, None, None)


def test_path_and_options_say_the_rest(certificate):
    file, key = map(str, certificate)
    url = "pulsar+ssl://host:7000/vision/staging?prefix=a_b&token=s3cret&admin=https://host:8443/&verify=false"
    location = location_of(f"{url}&ca_certs={file}&cert={file}&key={key}")
    assert location.service_url == "pulsar+ssl://host:7000"
    assert (location.tenant, location.namespace, location.prefix) == ("vision", "staging", "a_b")
    assert (location.token, location.admin, location.verify) == ("s3cret", "https://host:8443", False)
    assert (location.ca_certs, location.cert, location.key) == (file, file, key)


def test_an_address_of_the_sixth_version_keeps_its_brackets():
    assert location_of("pulsar://[::1]:6650").service_url == "pulsar://[::1]:6650"


def test_tls_has_a_port_of_its_own():
    assert location_of("pulsar+ssl://host").service_url == "pulsar+ssl://host:6651"


def test_user_and_password_are_read_and_never_shown():
    location = location_of("pulsar://me:p%40ss@host")
    assert (location.username, location.password) == ("me", "p@ss")
    assert "p@ss" not in location.shown
    assert "s3cret" not in location_of("pulsar://host?token=s3cret").shown


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("pulsar:host", "not the address"),
        ("pulsar://host#fragment", "not the address"),
        ("pulsar://host:port", "cannot read"),
        ("pulsar://host/tenant", "tenant and namespace"),
        ("pulsar://host/tenant/namespace/topic", "tenant and namespace"),
        ("pulsar://host/tenant/name space", "tenant and namespace"),
        ("pulsar://host?prefx=a", "did you mean 'prefix'"),
        ("pulsar://host?prefix=a&prefix=b", "twice"),
        ("pulsar://host?prefix=with.dot", "prefix"),
        ("pulsar://host?prefix=", "prefix"),
        ("pulsar://host?verify=false", "pulsar+ssl"),
        ("pulsar+ssl://host?verify=no", "true or false"),
        ("pulsar+ssl://host?cert=/c.pem", "go together"),
        ("pulsar://me:secret@host?token=t", "one of them"),
        ("pulsar://host?admin=host:8080", "admin"),
    ],
)
def test_what_cannot_be_read_is_named(url, word):
    with pytest.raises(ConfigError) as caught:
        open_broker(url)
    assert word in str(caught.value)
    assert "secret" not in str(caught.value)
