"""Settings as they are where a project is deployed."""

from __future__ import annotations

import tomllib

import msgspec
import pytest
from one_machine import HOME, PASSWORD, settings

from dumbwaiter.config import GatewaySettings, ModelSettings, ScalerSettings, load_settings
from dumbwaiter.deploy.image.project import IMAGE
from dumbwaiter.deploy.moving import opened, settings_tree
from dumbwaiter.deploy.toml import document
from dumbwaiter.errors import ConfigError

GIVEN, WITHOUT = (msgspec.structs.replace(IMAGE, gpus=gpus) for gpus in ("given", "none"))


def moved(given, folder, place=IMAGE):
    """The settings that a process there reads."""
    (folder / "dumbwaiter.toml").write_text(document(settings_tree(given, place)))
    return load_settings(str(folder / "dumbwaiter.toml"))


def test_every_path_of_this_machine_becomes_one_of_the_image_and_nothing_else_changes(tmp_path, monkeypatch):
    monkeypatch.delenv("DUMBWAITER_CONFIG", raising=False)
    given = settings()
    found = moved(given, tmp_path)
    assert HOME not in (tmp_path / "dumbwaiter.toml").read_text()
    assert found.broker == "sqlite:/var/lib/dumbwaiter/queue.db"
    assert found.blobs == "file:/var/lib/dumbwaiter/blobs"
    assert found.slots == "/var/lib/dumbwaiter/slots"
    assert found.models["add"].weights == "/app/big/add.safetensors"
    for name, model in given.models.items():
        expected = msgspec.structs.replace(model, project="/app", weights=found.models[name].weights)
        assert found.models[name] == expected
    assert (found.gateway.host, found.gateway.body_limit) == ("0.0.0.0", 1000)


@pytest.mark.parametrize("broker", [f"redis://chef:{PASSWORD}@redis:6379", f"pulsar://pulsar/kitchen?token={PASSWORD}"])
def test_nothing_secret_is_told(broker):
    given = settings(broker)
    assert PASSWORD in str(given)
    tree = settings_tree(given, IMAGE)
    assert PASSWORD not in str(tree)
    assert "broker" not in tree


@pytest.mark.parametrize("key", [None, f"{PASSWORD}-and-32-bytes-of-it-at-the-least"])
def test_a_signing_key_is_told_nowhere_and_a_variable_gives_it_there(key, tmp_path):
    """Otherwise the gateway there would take another, and know none of the ids that were given out."""
    given, hidden = opened(settings(gateway=GatewaySettings(signing_key=key)), {})
    assert PASSWORD not in str(settings_tree(given, IMAGE))
    file = tmp_path / "dumbwaiter.toml"
    file.write_text(document(settings_tree(given, IMAGE)))
    assert load_settings(file, environ={each.variable: key for each in hidden}).gateway.signing_key == key


def test_a_broker_without_a_password_is_told():
    assert settings_tree(settings("redis://redis:6379"), IMAGE)["broker"] == "redis://redis:6379"


def test_what_says_how_logs_look_is_heard():
    assert settings_tree(settings(), IMAGE)["log_format"] == "json"
    assert settings_tree(settings(log_format="human"), IMAGE)["log_format"] == "human"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"broker": "memory:"}, "one process's memory"),
        (
            {"models": {"a": ModelSettings(target="a:A", weights="/srv/weights.bin")}},
            "models.a.weights: /srv/weights.bin",
        ),
        ({"models": {"a": ModelSettings(target="a:A", project="/srv/a")}}, "models.a.project: /srv/a lies outside"),
        ({"models": {"a": ModelSettings()}}, "models.a has no target"),
        ({"gateway": GatewaySettings(certfile="/etc/ssl/a.pem")}, "gateway.certfile = '/etc/ssl/a.pem'"),
        ({"scaler": ScalerSettings(keyfile=f"{HOME}/a.key")}, f"scaler.keyfile = '{HOME}/a.key' lies on this machine"),
        ({"scaler": ScalerSettings(certfile="/etc/dumbwaiter-certificates/a.pem")}, "scaler.keyfile is not set"),
    ],
)
def test_what_cannot_be_there_is_refused_by_name(wrong, words):
    with pytest.raises(ConfigError) as refused:
        settings_tree(settings(**wrong), IMAGE)
    assert words in str(refused.value)


def test_no_model_is_refused():
    given = msgspec.structs.replace(settings(), models={})
    with pytest.raises(ConfigError, match="no model to deploy"):
        settings_tree(given, IMAGE)


def test_a_certificate_where_certificates_are_mounted_is_taken():
    pair = {"certfile": "/etc/dumbwaiter-certificates/a.pem", "keyfile": "/etc/dumbwaiter-certificates/a.key"}
    tree = settings_tree(settings(gateway=GatewaySettings(**pair), scaler=ScalerSettings(**pair)), IMAGE)
    assert pair.items() <= tree["gateway"].items()
    assert tree["scaler"] == pair
    assert tomllib.loads(document(tree)) == tree


def device(address, place):
    models = {"a": ModelSettings(target="a:A", device=address)}
    return settings_tree(settings(models=models), place)["models"]["a"].get("device", "auto")


@pytest.mark.parametrize(
    ("address", "all_seen", "given", "without"),
    [
        ("auto", "auto", "auto", "none"),
        ("cuda", "cuda", "cuda", "none"),
        ("cuda:1", "cuda:1", "cuda", "none"),
        ("cuda:GPU-12ab", "cuda:GPU-12ab", None, "none"),
        ("cuda:MIG-12ab", "cuda:MIG-12ab", None, "none"),
        ("none", "none", "none", "none"),
        ("host:8GiB", "host:8GiB", "host:8GiB", "host:8GiB"),
    ],
)
def test_a_device_is_one_that_is_seen_there(address, all_seen, given, without):
    """Whoever is given a GPU counts from 0 what he was given, and knows no card of this machine by its name."""
    assert device(address, IMAGE) == all_seen
    assert device(address, WITHOUT) == without
    if given is not None:
        assert device(address, GIVEN) == given
        return
    with pytest.raises(ConfigError, match=rf"models\.a\.device = '{address}' .* write device = \"cuda\""):
        device(address, GIVEN)
