"""The units, verified by systemd itself where it is installed."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from one_machine import HOME, PASSWORD, PINNED, settings

from dumbwaiter.config import GatewaySettings, ModelSettings
from dumbwaiter.deploy.models import Measured
from dumbwaiter.deploy.requirements import Requirements
from dumbwaiter.deploy.systemd import files, systemd_project_of
from dumbwaiter.errors import ConfigError
from processes import environment, run_in

WORST = 2.0
"""The exposure, from 0 to 10, that no unit may exceed; systemd calls what is below 2.5 OK."""


def rendered(prefix="/opt/dumbwaiter", measured=None, requirements=PINNED, **more):
    return files(systemd_project_of(settings(**more), prefix, requirements, measured))


def unit(text):
    """Sections, keys and all values of each key."""

    class Several(dict):
        def __setitem__(self, key, value):
            if isinstance(value, list) and key in self:
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(strict=False, dict_type=Several, empty_lines_in_values=False)
    parser.optionxform = str
    parser.read_string(text)
    return {name: {key: value.split("\n") for key, value in parser[name].items()} for name in parser.sections()}


def services():
    return {name: unit(text) for name, text in rendered().items() if name.endswith(".service")}


def analyze(*arguments, cwd):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("RULE NOT CHECKED: systemd-analyze is missing: apt-get install systemd")
    return subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture
def installed(tmp_path):
    """The units in a folder, with a program where they look for one."""
    prefix = tmp_path / "opt"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/dumbwaiter").symlink_to(shutil.which("true"))
    folder = tmp_path / "units"
    folder.mkdir()
    for name, text in rendered(str(prefix)).items():
        if name.endswith((".service", ".target")):
            # What can run several times is looked at as one of them.
            (folder / name.replace("@.", "@1.")).write_text(text.replace("/usr/bin/nvidia-modprobe", "/usr/bin/true"))
    return folder


def test_systemd_finds_nothing_wrong_with_any_unit(installed):
    names = sorted(file.name for file in installed.iterdir())
    assert len(names) == 7
    shown = analyze("verify", *(f"./{name}" for name in names), cwd=installed)
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Restart=on-failure", "Restart=on-faliure"),
        ("TimeoutStopSec=", "TimeoutStopSec=1 parsec and "),
        ("ProtectHome=yes", "ProtectHomes=yes"),
        ("ExecStart=", "ExecStart=relative/"),
    ],
)
def test_systemd_would_find_a_mistake(installed, right, wrong):
    file = installed / "dumbwaiter-courier.service"
    assert right in file.read_text()
    file.write_text(file.read_text().replace(right, wrong))
    shown = analyze("verify", f"./{file.name}", cwd=installed)
    assert shown.stderr


def test_no_process_of_ours_is_more_exposed_than_it_must_be(installed):
    for file in installed.glob("dumbwaiter-*.service"):
        if file.name != "dumbwaiter-gpu.service":  # it loads a driver and is gone
            shown = analyze("security", "--offline=true", "--no-pager", f"./{file.name}", cwd=installed)
            score = re.search(r"exposure level for .*: ([0-9.]+)", shown.stdout)
            assert score, shown.stdout + shown.stderr
            assert float(score[1]) <= WORST, file.name


def test_the_target_starts_all_and_each_is_stopped_with_it():
    wants = unit(rendered()["dumbwaiter.target"])["Unit"]["Wants"]
    assert wants == [
        "dumbwaiter-gateway.service",
        "dumbwaiter-courier.service",
        "dumbwaiter-worker-resnet@1.service",
        "dumbwaiter-worker-resnet@2.service",
        "dumbwaiter-worker-Text.Embedding.service",
        "dumbwaiter-worker-add@1.service",
    ]
    for name, one in services().items():
        if name != "dumbwaiter-gpu.service":
            assert one["Unit"]["PartOf"] == ["dumbwaiter.target"]
            assert one["Install"]["WantedBy"] == ["dumbwaiter.target"]


def test_each_runs_its_part_as_a_user_of_its_own_and_is_told_alone_to_stop():
    found = services()
    started = {name: one["Service"]["ExecStart"][0].partition("/bin/dumbwaiter ")[2] for name, one in found.items()}
    del started["dumbwaiter-gpu.service"]
    assert started == {
        "dumbwaiter-gateway.service": "gateway",
        "dumbwaiter-courier.service": "courier",
        "dumbwaiter-worker-resnet@.service": "worker resnet",
        "dumbwaiter-worker-Text.Embedding.service": "autoscale Text.Embedding",
        "dumbwaiter-worker-add@.service": "worker add",
    }
    for name in started:
        service = found[name]["Service"]
        assert service["User"] == ["dumbwaiter"]
        assert service["KillMode"] == ["mixed"]
        assert service["OOMPolicy"] == ["continue"]
        assert service["RestartPreventExitStatus"] == ["2"]


def test_a_worker_gets_as_long_to_stop_as_its_batches_take():
    text = rendered(measured={"add": Measured(long_batch=80.0, load_seconds=20.0)})["dumbwaiter-worker-add@.service"]
    service = unit(text)["Service"]
    assert service["TimeoutStopSec"] == ["135"]
    assert "DUMBWAITER_WORKER__GRACE=125" in service["Environment"]


def test_only_workers_on_a_gpu_see_devices():
    for name, one in services().items():
        on_gpu = name.startswith(("dumbwaiter-worker-resnet", "dumbwaiter-worker-Text"))
        if on_gpu:
            assert one["Service"]["DevicePolicy"] == ["closed"]
            assert "char-nvidia* rw" in one["Service"]["DeviceAllow"]
            assert "dumbwaiter-gpu.service" in one["Unit"]["After"][0].split()
        elif name != "dumbwaiter-gpu.service":
            assert one["Service"]["PrivateDevices"] == ["yes"]


def test_without_a_model_on_the_gpu_no_unit_speaks_of_it():
    found = rendered(models={"add": ModelSettings(target="light:Add", device="none")})
    assert "nvidia" not in "".join(found.values())


def test_what_is_written_lies_in_the_folders_that_may_be_written():
    tree = tomllib.loads(rendered()["dumbwaiter.toml"])
    assert HOME not in str(tree)
    paths = [
        tree["slots"],
        tree["footprints"],
        tree["ledgers"],
        *(tree[one].partition(":")[2] for one in ("broker", "blobs")),
    ]
    assert all(path.startswith(("/var/lib/dumbwaiter/", "/run/dumbwaiter/")) for path in paths)
    for name, one in services().items():
        if name != "dumbwaiter-gpu.service":
            assert one["Service"]["ProtectSystem"] == ["strict"]
            assert one["Service"]["StateDirectory"] == one["Service"]["RuntimeDirectory"] == ["dumbwaiter"]
            # Else the first to stop takes the ledgers from all others.
            assert one["Service"]["RuntimeDirectoryPreserve"] == ["yes"]


def test_each_process_gives_its_own_signs_of_life():
    assert "heartbeat" not in tomllib.loads(rendered()["dumbwaiter.toml"])
    found = [one["Service"].get("Environment", []) for one in services().values()]
    assert sum("DUMBWAITER_HEARTBEAT=/run/dumbwaiter/%N.heartbeat" in one for one in found) == 5


def test_a_gateway_may_bind_a_port_of_the_system_only_if_it_is_to():
    usual = unit(rendered()["dumbwaiter-gateway.service"])["Service"]
    assert usual["CapabilityBoundingSet"] == [""]
    text = rendered(gateway=GatewaySettings(port=443))["dumbwaiter-gateway.service"]
    assert unit(text)["Service"]["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]
    assert "PrivateUsers" not in text  # in which it would be a capability over nothing


def test_nothing_secret_is_rendered_and_where_to_write_it_is_said():
    found = rendered(broker=f"redis://chef:{PASSWORD}@127.0.0.1")
    assert PASSWORD not in "".join(found.values())
    assert 'write `broker = "..."`' in found["README.md"]
    assert "redis-server.service" in found["dumbwaiter-gateway.service"]


@pytest.mark.parametrize("prefix", ["opt/dumbwaiter", "/opt/dumb waiter", "/opt/%h", "/opt/$HOME"])
def test_a_prefix_that_systemd_would_read_otherwise_is_refused(prefix):
    with pytest.raises(ConfigError, match="--prefix"):
        rendered(prefix)


def installs(text):
    """What the page says to install packages with."""
    return [line for line in text.splitlines() if " -m pip install " in line]


def test_packages_come_from_where_their_vendor_has_them_and_what_pip_reads_itself_comes_first():
    found = Requirements(pins=["dumbwaiter==0.1.0", "torch==2.13.0+cpu"], source="", as_is="requirements.txt")
    first, second = installs(rendered(requirements=found)["README.md"])
    assert first.endswith("--requirement /opt/dumbwaiter/app/requirements.txt")
    assert second.endswith("--requirement requirements.txt")
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in first
    assert "torch==2.13.0+cpu" in rendered(requirements=found)["requirements.txt"]


def test_the_page_installs_exactly_what_is_installed_here(tmp_path):
    (tmp_path / "requirements.txt").write_text("dumbwaiter[image]\nrich\n")
    (tmp_path / "dumbwaiter.toml").write_text('broker = "redis://redis"\n[models.add]\ntarget = "light:Add"\n')
    shown = run_in(tmp_path, "deploy", "systemd", "--unmeasured")
    assert shown.returncode == 0, shown.stderr
    assert "from requirements.txt, in the versions installed here" in shown.stdout
    (line,) = installs((tmp_path / "systemd/README.md").read_text())
    python, _, arguments = line.partition(" -m ")
    assert python == "sudo /opt/dumbwaiter/bin/python"
    command = [sys.executable, "-m", *arguments.split(), "--no-index", "--dry-run"]
    done = subprocess.run(
        command, cwd=tmp_path / "systemd", capture_output=True, text=True, timeout=50, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "dumbwaiter[image,redis]==" in done.stdout
    assert "Would install" not in done.stdout


def test_the_command_writes_the_files_and_says_what_is_next(tmp_path):
    (tmp_path / "light.py").write_text("class Add: ...\n")
    (tmp_path / "dumbwaiter.toml").write_text('[models.add]\ntarget = "light:Add"\n')
    shown = run_in(tmp_path, "deploy", "systemd", "--prefix", "/srv/kitchen")
    assert shown.returncode == 0, shown.stderr
    assert "/srv/kitchen/bin/dumbwaiter worker add" in (tmp_path / "systemd/dumbwaiter-worker-add@.service").read_text()
    assert run_in(tmp_path, "deploy", "systemd", "--check").returncode == 1
    assert run_in(tmp_path, "deploy", "systemd", "--check", "--prefix", "/srv/kitchen").returncode == 0
