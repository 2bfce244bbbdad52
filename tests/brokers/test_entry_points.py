"""An adapter of another distribution is found by its entry point, as pip would have installed it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from dumbwaiter.brokers import is_broker_scheme, open_broker
from dumbwaiter.errors import ConfigError

ADAPTER = """
from dumbwaiter.brokers.memory import MemoryBroker

class CarrierBroker(MemoryBroker):
    def __init__(self, url, *, lock_duration):
        super().__init__("memory:", lock_duration=lock_duration)
        self.url = url

not_a_broker = dict
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay a distribution into a folder of installed ones: its name, entry points and module."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def lay(distribution, points, *, module="carrier_pigeons", source=ADAPTER):
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "".join(f"{scheme} = {value}\n" for scheme, value in points.items())
        (info / "entry_points.txt").write_text(f"[dumbwaiter.brokers]\n{lines}")
        importlib.invalidate_caches()
        return tmp_path

    yield lay
    sys.modules.pop("carrier_pigeons", None)


def test_the_scheme_of_an_installed_adapter_is_opened(install):
    install("dumbwaiter-pigeons", {"pigeon": "carrier_pigeons:CarrierBroker"})
    broker = open_broker("pigeon://loft", lock_duration=7.0)
    assert (type(broker).__name__, broker.url, broker.lock_duration) == ("CarrierBroker", "pigeon://loft", 7.0)


def test_a_command_opens_it_in_a_process_of_its_own(install):
    folder = install("dumbwaiter-pigeons", {"pigeon": "carrier_pigeons:CarrierBroker"})
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); from dumbwaiter.cli import main; main(['queues', 'pigeon:'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "no broker for" not in ended.stdout + ended.stderr


def test_nothing_of_it_is_loaded_for_a_scheme_of_ours_or_to_know_that_it_is_there(install):
    install(
        "dumbwaiter-pigeons", {"pigeon": "carrier_pigeons:CarrierBroker", "memory": "carrier_pigeons:CarrierBroker"}
    )
    assert type(open_broker("memory:")).__name__ == "MemoryBroker"
    assert is_broker_scheme("pigeon")
    assert is_broker_scheme("memory")
    assert not is_broker_scheme("gopher")
    assert "carrier_pigeons" not in sys.modules


def test_an_unknown_scheme_is_refused_with_those_that_there_are(install):
    install("dumbwaiter-pigeons", {"pigeon": "carrier_pigeons:CarrierBroker"})
    with pytest.raises(ConfigError, match=r"must be one of .*memory:, .*pigeon:"):
        open_broker("gopher://host")


@pytest.mark.parametrize(
    ("value", "source", "reason"),
    [
        ("carrier_pigeons:NoSuchClass", ADAPTER, "cannot be loaded .*NoSuchClass"),
        ("carrier_pigeons:CarrierBroker", "import no_such_client", "cannot be loaded .*no_such_client"),
        ("carrier_pigeons:CarrierBroker", "1 / 0", "cannot be loaded .*ZeroDivisionError"),
        ("carrier_pigeons:not_a_broker", ADAPTER, "is no Broker"),
    ],
)
def test_one_that_cannot_be_used_is_named_with_its_distribution_and_the_reason(install, value, source, reason):
    install("dumbwaiter-pigeons", {"pigeon": value}, source=source)
    with pytest.raises(ConfigError, match=reason) as caught:
        open_broker("pigeon://user:s3cret@loft")
    assert f"dumbwaiter-pigeons ({value})" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_two_that_name_different_adapters_for_one_scheme_are_both_named(install):
    install("dumbwaiter-pigeons", {"pigeon": "carrier_pigeons:CarrierBroker"})
    install("better-pigeons", {"pigeon": "carrier_pigeons:Better"})
    with pytest.raises(ConfigError, match=r"better-pigeons .* and dumbwaiter-pigeons .*; uninstall all but one"):
        open_broker("pigeon:")
