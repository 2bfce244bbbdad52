"""`dumbwaiter devices`, and which device a model is given."""

from __future__ import annotations

import contextlib
import json
import re

import click
import msgspec
import pytest

from dumbwaiter.cli.serve import plans_of
from dumbwaiter.cli.targets import settings_and_models, spec_of, terms_of
from dumbwaiter.devices.fake import FakeDevice
from dumbwaiter.devices.ledger import now
from dumbwaiter.devices.opening import fake_options, open_device
from dumbwaiter.devices.sharing import Terms, ledger_path
from dumbwaiter.errors import ConfigError
from dumbwaiter.policies.admission import RUNNING, Seat
from seat_process import CAPACITY, DEVICE, GIB, Seated

SMALL = Seat(model="small", resident=2 * GIB, full=2 * GIB, need=GIB, seconds=0.1)


@pytest.fixture
def folder(project):
    """Where the settings of the project's folder say that ledgers lie."""
    (project / "dumbwaiter.toml").write_text('ledgers = "ledgers"\n')
    return project / "ledgers"


@pytest.fixture
def sit(folder):
    """Starts a process that says *seat* in the ledger of *device*."""
    with contextlib.ExitStack() as stack:

        def start(seat, device=DEVICE, capacity=CAPACITY):
            return stack.enter_context(Seated(ledger_path(folder, device), seat, device=device, capacity=capacity))

        yield start


@pytest.fixture
def shared(sit):
    """A card on which one model runs, one waits for it, and one has died."""
    moment = now()
    busy = {"granted": 4 * GIB, "granted_at": moment, "until": moment + 300.0, "deadline": moment + 900.0}
    sit(msgspec.structs.replace(SMALL, doing=RUNNING, **busy))
    weights = {"resident": 0, "full": 3 * GIB, "load_seconds": 2.0}
    # Nobody looks again on its behalf, and it shall not be passed by for that.
    waits = {"asked_at": moment - 5.0, "looked_at": moment + 60.0}
    sit(Seat(model="big", need=GIB, seconds=0.5, weight=2.5, **weights, **waits))
    sit(Seat(model="gone", resident=GIB, full=GIB)).kill()


def test_people_see_who_holds_what_and_why_somebody_waits(run, shared):
    shown = run("devices")
    assert (shown.returncode, shown.stderr) == (0, "")
    heading, columns, small, big, gone, *reasons = shown.stdout.splitlines()
    assert heading == "GPU-1: 8.00 GiB, 7.00 GiB of 7.75 GiB given out"
    assert columns.split() == ["place", "model", "doing", "resident", "granted", "evictable", "weight", "waits"]
    assert " ".join(small.split()) == "0 small running 2.00 GiB 4.00 GiB 2.00 GiB 1 -"
    assert re.fullmatch(r" +1  big +parked +0 MiB +0 MiB +0 MiB +2\.5 +\S+ s", big)
    assert " ".join(gone.split()) == "2 gone dead 1.00 GiB 0 MiB 0 MiB 1 -"
    assert reasons[0].startswith("  place 1: big waits for 3.00 GiB for its weights and 1.00 GiB for a batch")
    assert reasons[1] == "  place 2: its process died while idle, and nobody has seen its memory free yet"
    assert re.fullmatch(r"  next: place 1, expected in \S+ (s|min)", reasons[2])


def test_programs_see_the_same_in_bytes_and_seconds(run, shared):
    (card,) = json.loads(run("devices", "--json").stdout)["devices"]
    small, big, gone = card.pop("seats")
    assert 0.0 < card.pop("starts_in") <= 300.0
    assert card.pop("ledger").endswith("/ledgers/GPU-1.ledger")
    assert card == {
        "name": "GPU-1",
        "capacity": CAPACITY,
        "limit": CAPACITY - 256 * 2**20,
        "outside": 0,
        "used": None,
        "first": 1,
        "error": None,
    }
    assert small == {
        "place": 0,
        "model": "small",
        "doing": "running",
        "weight": 1.0,
        "resident": 2 * GIB,
        "granted": 4 * GIB,
        "evictable": 2 * GIB,
        "waits": None,
        "reason": "",
    }
    assert 5.0 <= big["waits"] < 60.0
    assert "it is first in line" in big["reason"]
    assert (gone["doing"], gone["resident"]) == ("dead", GIB)


def test_where_no_device_was_ever_shared_it_says_so_and_where_it_looked(run, folder):
    shown = run("devices")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == f"no worker has shared a device on this machine yet; looked in {folder}\n"
    assert json.loads(run("devices", "--json").stdout) == {"devices": []}


def test_one_ledger_or_a_folder_of_them_can_be_named(run, folder, sit):
    sit(SMALL, "GPU-1")
    sit(SMALL, "GPU-2")
    for where, names in ((folder, ["GPU-1", "GPU-2"]), (ledger_path(folder, "GPU-2"), ["GPU-2"])):
        shown = run("devices", "--json", "--ledger", str(where), DUMBWAITER_LEDGERS="/nowhere")
        assert [device["name"] for device in json.loads(shown.stdout)["devices"]] == names


def test_a_ledger_that_cannot_be_read_is_told_beside_the_others_and_the_exit_code_is_1(run, folder, sit):
    sit(SMALL)
    ledger_path(folder, "GPU-2").write_text("hello")
    shown = run("devices")
    assert shown.returncode == 1
    assert "small" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith(
        f"GPU-2: the ledger {folder}/GPU-2.ledger is no ledger; remove it if"
    )
    told = run("devices", "--json")
    assert told.returncode == 1
    good, bad = json.loads(told.stdout)["devices"]
    assert (good["error"], bad["name"], bad["capacity"], bad["seats"]) == (None, "GPU-2", None, [])
    assert "is no ledger" in bad["error"]


def test_a_device_from_which_all_have_gone_is_told_as_nobodys(run, folder, sit):
    with Seated(ledger_path(folder, DEVICE), SMALL) as last:
        last.leave()
    assert run("devices").stdout == "GPU-1: 8.00 GiB, 0 MiB of 7.75 GiB given out\n  nobody shares it now\n"


def test_what_is_in_use_is_told_of_the_device_that_is_named(run, project, sit):
    address = f"fake:8GiB?path={project}/card"
    with contextlib.closing(FakeDevice(fake_options(address))) as device:
        sit(SMALL, device.name)
    (card,) = json.loads(run("devices", "--json", "--device", address).stdout)["devices"]
    assert (card["used"], len(card["seats"])) == (0, 1)
    assert run("devices", "--device", address).stdout.startswith(
        "fake-card: 8.00 GiB, 2.00 GiB of 7.75 GiB given out, 0 MiB in use\n"
    )


def test_what_is_in_use_is_told_of_the_default_device_without_asking(run, sit):
    with contextlib.closing(open_device("auto")) as device:
        sit(SMALL, device.name, device.capacity)
        sit(SMALL, "GPU-of-another-machine")
    told = {one["name"]: one for one in json.loads(run("devices", "--json").stdout)["devices"]}
    assert 0 < told[device.name]["used"] <= device.capacity
    assert told["GPU-of-another-machine"]["used"] is None


def test_a_device_that_is_named_is_told_of_though_it_has_no_ledger(run, project, folder):
    shown = run("devices", "--device", f"fake:8GiB?path={project}/card")
    assert shown.stdout == "fake-card: 8.00 GiB, 0 MiB of 7.75 GiB given out, 0 MiB in use\n  nobody shares it now\n"
    wrong = run("devices", "--device", "cdua")
    assert wrong.returncode == 2
    assert "'cdua' names no device; there are auto, cuda, " in wrong.stderr


def test_a_worker_on_a_device_is_seen_there_until_it_leaves(serve, run, project, folder):
    serving = serve("light:Shout", "--device", f"fake:8GiB?path={project}/card").ready()
    (card,) = json.loads(run("devices", "--json").stdout)["devices"]
    assert (card["name"], [seat["model"] for seat in card["seats"]]) == ("fake-card", ["shout"])
    assert serving.stop() == 0
    (card,) = json.loads(run("devices", "--json").stdout)["devices"]
    assert card["seats"] == []


def test_a_terminal_obeys_no_name_from_a_ledger(run, sit):
    sit(msgspec.structs.replace(SMALL, model="\x1b[2Jsmall", doing="\x1b[31mangry"))
    shown = run("devices").stdout
    assert "\x1b" not in shown
    assert r"\x1b[2Jsmall  \x1b[31mangry" in shown


# --- which device a model is given ---


@pytest.fixture
def models(project, monkeypatch):
    monkeypatch.chdir(project)

    def read(arguments, *devices):
        with click.Context(click.Command("serve")):
            return settings_and_models(arguments, devices=devices)

    return read


def devices_of(settings):
    return {name: model.device for name, model in settings.models.items()}


def test_without_a_word_a_model_shares_the_default_device(models):
    settings, chosen = models(["light:Shout"])
    assert devices_of(settings) == {"shout": "auto"}
    assert chosen[0].device is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["cuda:1"], {"shout": "cuda:1", "add": "cuda:1"}),
        (["add=none"], {"shout": "auto", "add": "none"}),
        (["add=none", "host:8GiB"], {"shout": "host:8GiB", "add": "none"}),
        (
            ["shout=fake:8GiB?path=/a", "add=fake:1GiB?path=/b"],
            {"shout": "fake:8GiB?path=/a", "add": "fake:1GiB?path=/b"},
        ),
        (["fake:8GiB?path=/a"], {"shout": "fake:8GiB?path=/a", "add": "fake:8GiB?path=/a"}),
    ],
)
def test_a_device_is_that_of_the_model_it_is_named_for_or_of_all_others(models, given, expected):
    settings, _ = models(["light:Shout", "light:Add"], *given)
    assert devices_of(settings) == expected


def test_a_wrong_device_is_told_with_the_forms_that_there_are(models):
    with pytest.raises(
        ConfigError, match=r"--device: models\.shout\.device: 'gpu:0' names no device; write auto, none, "
    ):
        models(["light:Shout"], "gpu:0")
    with pytest.raises(click.UsageError, match=r"which models use the device 'cuda:1'\? write --device NAME=DEVICE"):
        models(["light:Shout", "light:Add"], "cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "shoutt=host:1GiB",
            "--device shoutt=host:1GiB: no model 'shoutt'; there are shout, add; did you mean 'shout'?",
        ),
        ("x=none", "--device x=none: no model 'x'; there are shout, add"),
    ],
)
def test_a_device_for_a_model_that_is_not_there_is_told_with_those_that_are(models, given, said):
    with pytest.raises(click.UsageError) as caught:
        models(["light:Shout", "light:Add"], given)
    assert caught.value.message == said


def test_serve_hands_the_devices_that_it_was_given_to_its_workers(project, monkeypatch):
    monkeypatch.chdir(project)
    with click.Context(click.Command("serve")):
        settings, chosen = settings_and_models(["light:Shout", "light:Add"], devices=["add=host:1GiB"])
        plans = {plan.name: list(plan.arguments) for plan in plans_of(settings, chosen, 0)}
    assert plans["add"][-2:] == ["--device", "add=host:1GiB"]
    assert "--device" not in plans["shout"]


def test_a_workers_terms_are_what_the_settings_say_of_its_model(models, project):
    (project / "dumbwaiter.toml").write_text(
        'ledgers = "ledgers"\n[models.shout]\nfootprint = "3GiB"\nweight = 2\npark_after = "1m"\nweights = "w"\n'
    )
    settings, _ = models(["light:Shout"], "host:8GiB")
    assert terms_of(spec_of("shout", settings), settings) == Terms(
        model="shout",
        device="host:8GiB",
        ledgers=project / "ledgers",
        footprints=project / ".dumbwaiter" / "footprints",
        weight=2.0,
        footprint=3 * GIB,
        park_after=60.0,
        target="light:Shout",
        weights=f"{project}/w",
        project=str(project),
    )


def test_serve_and_worker_say_at_once_that_a_device_cannot_be_had(run, project):
    with contextlib.closing(FakeDevice(fake_options(f"fake:1GiB?path={project}/card"))):
        shown = run("serve", "light:Shout", "--port", "0", "--device", f"fake:8GiB?path={project}/card")
    assert shown.returncode == 2
    assert f"the fake device in {project}/card has {GIB} bytes, not {8 * GIB}" in shown.stderr
    wrong = run("worker", "light:Shout", "--device", "cuda:one")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(
        "dumbwaiter: error: --device: models.shout.device: 'cuda:one' names no device; write"
    )


@pytest.mark.parametrize(
    ("settings", "arguments", "said"),
    [
        (
            "",
            ["--device", "add=host:32MiB", "--device", "shout=host:64MiB"],
            "shout has device host:64MiB and add host:32",
        ),
        (
            '[models.shout]\ndevice = "host:64MiB"\n',
            ["--device", "add=host"],
            "shout has device host:64MiB and add host:",
        ),
    ],
)
def test_serve_refuses_one_device_of_two_sizes(run, project, settings, arguments, said):
    (project / "dumbwaiter.toml").write_text(settings)
    shown = run("serve", "light:Shout", "light:Add", "--port", "0", *arguments)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert said in shown.stderr
    assert shown.stderr.endswith(": that is one device (host) of two sizes; write the same for both\n")


@pytest.mark.parametrize(
    ("settings", "arguments", "place"),
    [
        ("", ["--device", "host:9000TiB"], "--device: "),
        ('[models.shout]\ndevice = "host:9000TiB"\n', [], "{project}/dumbwaiter.toml:2: "),
    ],
)
def test_serve_names_the_setting_of_a_device_that_cannot_be_had(run, project, settings, arguments, place):
    (project / "dumbwaiter.toml").write_text(settings)
    shown = run("serve", "light:Shout", "--port", "0", *arguments)
    assert shown.returncode == 2
    place = place.format(project=project)
    assert shown.stderr.startswith(f"dumbwaiter: error: {place}models.shout.device: host:")
