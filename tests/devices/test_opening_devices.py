"""Devices by address."""

from __future__ import annotations

import subprocess
import sys

import pytest
from nvml_answers import Nvml, card

from dumbwaiter.devices import fake
from dumbwaiter.devices.contract import DeviceError
from dumbwaiter.devices.fake import FakeDevice, FakeOptions
from dumbwaiter.devices.host import HostAllocator, HostDevice
from dumbwaiter.devices.opening import fake_options, open_allocator, open_device
from dumbwaiter.errors import ConfigError, DumbwaiterError, MissingExtraError


def test_the_host_is_opened_whole_or_with_a_budget():
    assert isinstance(open_device("host"), HostDevice)
    assert open_device("host:64MiB").capacity == 64 * 2**20
    assert open_device(open_device("host:64MiB").address).capacity == 64 * 2**20
    assert isinstance(open_allocator("host:64MiB"), HostAllocator)


def test_a_fake_device_is_opened_with_its_options(tmp_path):
    address = f"fake:8GiB?path={tmp_path}/card&context=300MiB&load=1GB&park=2GB&wake=3GB&frees_after=500ms&cache=false"
    options = fake_options(address)
    assert options == FakeOptions(
        address=options.address,
        folder=tmp_path / "card",
        capacity=8 * 2**30,
        context=300 * 2**20,
        load=1e9,
        park=2e9,
        wake=3e9,
        frees_after=0.5,
        cache=False,
    )
    assert fake_options(options.address) == options
    device = open_device(address)
    assert isinstance(device, FakeDevice)
    assert (device.kind, device.name, device.capacity) == ("fake", "fake-card", 8 * 2**30)
    device.close()


def test_a_fake_devices_path_is_made_absolute_and_survives_odd_letters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fake_options("fake:8?path=card").folder == tmp_path / "card"
    options = fake_options("fake:8?path=a+b%26c d")
    assert options.folder == tmp_path / "a+b&c d"
    assert fake_options(options.address) == options


def test_runner_and_consumer_find_the_same_fake_device(tmp_path):
    device = open_device(f"fake:1000?path={tmp_path}/card")
    try:
        open_allocator(device.address).open_context()
        fake.hold(600)
        assert device.used() == 600
    finally:
        fake.close_here()
        device.close()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("gpu:0", "'gpu:0' names no device; there are auto, cuda, cuda:1, cuda:GPU-<uuid>"),
        ("cudo:0", "'cudo:0' names no device; there are auto, .*path=FOLDER; did you mean 'cuda'[?]$"),
        ("", "'' names no device"),
        ("cuda:", "'cuda:' names no device"),
        ("auto:1", "'auto:1' names no device"),
        ("fake", "'fake' names no device"),
        ("host:", "'host:' names no device"),
        ("host:many", "'host:many': expected a size such as 512, 100kB or 32MiB, not 'many'"),
        ("host:0", "'host:0' is a device without memory; write how much it has, such as 8GiB"),
        ("host:9000TiB", "is no part of the [0-9]+ bytes"),
        ("fake:8GiB", "'fake:8GiB' needs a folder that its processes share; write fake:8GiB[?]path=FOLDER"),
        ("fake:8GiB?path=", "needs a folder that its processes share"),
        ("fake:?path=x", "expected a size such as"),
        ("fake:0?path=x", "is a device without memory"),
        ("fake:8?path=x&contxt=1", "no option 'contxt'; there are path, context, load, .*; did you mean 'context'[?]$"),
        ("fake:8?path=x&path=y", "option 'path' stands twice"),
        ("fake:8?path=x&cache=no", "expected true or false, not 'no'"),
        ("fake:8?path=x&load=0", "a rate of 0 bytes a second never ends"),
        ("fake:8?path=x&frees_after=soon", "expected a duration such as 500ms, 30s, 2m, 1h or 7d, not 'soon'"),
    ],
)
def test_a_wrong_address_is_told_what_there_is(address, complaint):
    with pytest.raises(ConfigError, match=complaint):
        open_device(address)


@pytest.mark.parametrize("address", ["auto", "cuda", "cuda:0"])
def test_a_runner_is_not_left_to_guess_which_device_is_meant(address):
    with pytest.raises(
        ConfigError, match=r"does not say which device it is; open it with open_device\(\), and pass its"
    ):
        open_allocator(address)


def test_a_runner_of_another_gpu_is_refused():
    with pytest.raises(DeviceError, match="was to use GPU-1 alone, but has CUDA_VISIBLE_DEVICES=GPU-2"):
        open_allocator("cuda:GPU-1", environ={"CUDA_VISIBLE_DEVICES": "GPU-2"})


def test_auto_is_the_host_where_nothing_speaks_of_a_gpu(tmp_path):
    assert isinstance(open_device("auto", root=tmp_path), HostDevice)


def with_driver(root, sign="nvidiactl"):
    """*root* as a file system in which a driver has left its *sign*."""
    (root / "dev").mkdir()
    (root / "dev" / sign).touch()
    return root


@pytest.mark.parametrize("sign", ["nvidiactl", "dxg", "nvmap"])
def test_auto_is_the_first_visible_gpu_and_the_host_where_none_is_visible(tmp_path, monkeypatch, sign):
    with_driver(tmp_path, sign)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(card("GPU-1"), card("GPU-2")))
    assert open_device("auto", environ={}, root=tmp_path).address == "cuda:GPU-1"
    assert open_device("auto", environ={"CUDA_VISIBLE_DEVICES": "1"}, root=tmp_path).address == "cuda:GPU-2"
    assert open_device("auto", environ={"CUDA_VISIBLE_DEVICES": ""}, root=tmp_path).kind == "host"


def test_a_gpu_is_opened_by_its_place_its_uuid_or_as_the_first(tmp_path, monkeypatch):
    root = with_driver(tmp_path)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(card("GPU-1"), card("GPU-2")))
    for address, name in (("cuda", "GPU-1"), ("cuda:1", "GPU-2"), ("cuda:GPU-2", "GPU-2")):
        assert open_device(address, environ={}, root=root).name == name
    with pytest.raises(DeviceError, match="there is no cuda:2; there is cuda:0"):
        open_device("cuda:2", environ={}, root=root)


@pytest.mark.parametrize("address", ["auto", "cuda", "cuda:0"])
def test_a_gpu_that_cannot_be_asked_is_neither_passed_over_nor_left_without_its_name(tmp_path, monkeypatch, address):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtraError, match=f"^{address}: nvidia-ml-py is not installed; install it with: pip"):
        open_device(address, root=with_driver(tmp_path))


@pytest.mark.parametrize("address", ["cuda", "cuda:0", "cuda:GPU-1"])
def test_where_there_is_no_driver_nobody_is_sent_to_install_what_would_ask_it(tmp_path, monkeypatch, address):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(DeviceError) as caught:
        open_device(address, root=tmp_path)
    assert str(caught.value) == (
        f"{address}: this machine has no NVIDIA driver (none of /dev/nvidiactl, /dev/dxg, /dev/nvmap is there); "
        "write host:8GiB or none"
    )


def test_errors_of_devices_are_dumbwaiters():
    assert issubclass(DeviceError, DumbwaiterError)


def test_looking_at_devices_from_outside_loads_no_framework():
    script = (
        "import sys; from dumbwaiter.devices.opening import open_device; open_device('host').used();"
        "print({'torch', 'numpy', 'pynvml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout == "set()\n"
