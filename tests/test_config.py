"""dumbwaiter.toml, then DUMBWAITER_*, then flags; what is wrong is named with its place."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.config import (
    Flag,
    ModelSettings,
    Settings,
    ledgers_folder,
    load_settings,
    parse_duration,
    parse_size,
    place_in_file,
)
from dumbwaiter.errors import ConfigError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(tmp_path, text):
    file = tmp_path / "dumbwaiter.toml"
    file.write_text(text)
    return file


def load(environ=None, flags=(), path=None):
    return load_settings(path, environ=environ or {}, flags=flags)


def complaint(environ=None, flags=(), path=None):
    with pytest.raises(ConfigError) as caught:
        load(environ, flags, path)
    return str(caught.value)


def test_without_any_source_the_defaults_hold_and_the_state_lies_beside_the_project(tmp_path):
    settings = load()
    assert settings.broker == f"sqlite:{tmp_path}/.dumbwaiter/queue.db"
    assert settings.blobs == f"file:{tmp_path}/.dumbwaiter/blobs"
    assert settings.gateway.port == Settings().gateway.port


def test_the_file_is_read_with_durations_sizes_and_models(tmp_path):
    write(
        tmp_path,
        """
        lock_duration = "2m"
        [gateway]
        port = 9000
        body_limit = "64MiB"
        [worker]
        grace = 10
        [models.cats]
        target = "network:Infer"
        weights = "weights/cats.safetensors"
        timeout = "500ms"
        parameters = { labels = ["tabby", "tiger"] }
        """,
    )
    settings = load()
    assert settings.lock_duration == 120.0
    assert (settings.gateway.port, settings.gateway.body_limit) == (9000, 64 * 2**20)
    assert settings.worker.grace == 10.0
    cats = settings.models["cats"]
    assert (cats.target, cats.timeout) == ("network:Infer", 0.5)
    assert cats.weights == f"{tmp_path}/weights/cats.safetensors"
    assert cats.parameters == {"labels": ["tabby", "tiger"]}


def test_variables_override_the_file_and_flags_override_both(tmp_path):
    write(tmp_path, "[gateway]\nport = 1\nhost = 'file'\nbody_limit = 1\n")
    environ = {"DUMBWAITER_GATEWAY__PORT": "2", "DUMBWAITER_GATEWAY__HOST": "variable"}
    gateway = load(environ, [Flag("--port", ("gateway", "port"), "3")]).gateway
    assert (gateway.port, gateway.host, gateway.body_limit) == (3, "variable", 1)


def test_relative_paths_of_the_file_belong_to_its_folder_and_those_of_flags_to_the_current_one(tmp_path, monkeypatch):
    project = tmp_path / "project"
    project.mkdir()
    file = write(project, 'broker = "sqlite:state/q.db"')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = load(path=file, flags=[Flag("--blobs", ("blobs",), "file:here")])
    assert settings.broker == f"sqlite:{project}/state/q.db"
    assert settings.blobs == f"file:{elsewhere}/here"
    assert settings.home == str(project)


def test_other_urls_and_absolute_paths_are_left_alone():
    settings = load({"DUMBWAITER_BROKER": "sqlite:/var/lib/q.db", "DUMBWAITER_BLOBS": "s3://bucket/prefix"})
    assert (settings.broker, settings.blobs) == ("sqlite:/var/lib/q.db", "s3://bucket/prefix")


def test_the_memory_broker_keeps_blobs_in_memory_too_unless_told_otherwise():
    assert load({"DUMBWAITER_BROKER": "memory:"}).blobs == "memory:"
    assert load({"DUMBWAITER_BROKER": "memory:", "DUMBWAITER_BLOBS": "file:/b"}).blobs == "file:/b"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[gateway]\nhost = 'x'\nprot = 80\n", 3, ["gateway.prot", "did you mean 'port'"]),
        ("\n[gatewy]\nport = 80\n", 2, ["gatewy", "did you mean 'gateway'"]),
        ("lock_duraton = 3\n", 1, ["lock_duraton", "did you mean 'lock_duration'"]),
        ("[gateway]\nport = 'eighty'\n", 2, ["gateway.port: expected a whole number from 0 to 65535, not 'eighty'"]),
        ("[gateway]\n\nport = 99999\n", 3, ["gateway.port: expected a whole number from 0 to 65535, not 99999"]),
        ("[models.a]\nmax_deliveries = 0\n", 2, ["expected a whole number from 1 on, not 0"]),
        ("[models.a]\nmax_batch = 'many'\n", 2, ["models.a.max_batch: expected a whole number ", "not 'many'"]),
        ("[models.a]\nweights = 7\n", 2, ["models.a.weights: expected a text, not 7"]),
        ("[models.a]\nparameters = 7\n", 2, ["models.a.parameters: expected a table, not 7"]),
        ("[gateway]\nport = true\n", 2, ["gateway.port", "True"]),
        ("log_format = 'jsn'\n", 1, ["auto, human, json", "did you mean 'json'"]),
        ("[worker]\ngrace = '5 fortnights'\n", 2, ["worker.grace", "5 fortnights", "30s"]),
        ("[gateway]\nbody_limit = '5 apples'\n", 2, ["gateway.body_limit", "5 apples", "32MiB"]),
        (
            "[worker]\ngrace = -1\n",
            2,
            ["worker.grace: expected a duration such as 500ms, 30s, 2m, 1h or 7d, at most 365d, not -1"],
        ),
        ("lock_duration = 0\n", 1, ["lock_duration: expected a duration ", ", above 0 and at most 365d, not 0"]),
        ("[models.cats]\ntarget = 'a:B'\nmax_bach = 3\n", 3, ["models.cats.max_bach", "did you mean 'max_batch'"]),
        ('[models."a b"]\ntarget = "a:B"\n', 2, ["'a b' cannot name a model: use letters, digits, ", "first"]),
        ('\n[models."../x"]\n', 2, ["'../x' cannot name a model"]),
        ("[models._system]\nscaling.max_replicas = 2\n", 2, ["'_system' cannot name a model", "digit first"]),
        ('[models."dumbwaiter.webhooks"]\nweight = 2\n', 2, ["cannot name a model: names in 'dumbwaiter.' are the s"]),
        (f"[models.{'x' * 81}]\nweight = 2\n", 2, ["cannot name a model", "at most 80"]),
        ("[models]\ncats = 'a:B'\n", 2, ["models.cats is a table", "[models.cats]"]),
        ("gateway = 5\n", 1, ["gateway is a table"]),
        ("x = '''\n[gateway]\nprot = 1\n'''\n[gateway]\nprot = 1\n", 1, ["unknown setting 'x'"]),
        ("log_level = 'info'\n[worker]\ngateway.port = 80\n", 3, ["worker.gateway"]),
        ("port = \n", 1, ["not valid TOML"]),
        ("home = '/'\n", 1, ["unknown setting 'home'"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line_and_the_nearest_right_one(tmp_path, text, line, words):
    file = write(tmp_path, text)
    said = complaint()
    assert said.startswith(f"{file}:{line}: "), said
    for word in words:
        assert word in said


def test_keys_are_found_after_a_text_of_several_lines_that_looks_like_settings(tmp_path):
    file = write(tmp_path, "[models.a]\ntarget = '''\n[gateway]\nprot = 1\n'''\n[gateway]\nprot = 1\n")
    assert complaint().startswith(f"{file}:7: unknown setting 'gateway.prot'")


def test_a_model_of_which_nothing_is_said_is_there(tmp_path):
    write(tmp_path, "[models.a]\n[models.b]\ntarget = 'm:B'\n")
    assert load().models["a"] == ModelSettings()
    models = load({"DUMBWAITER_MODELS__A__TARGET": "m:A"}).models
    assert (models["a"].target, models["b"].target) == ("m:A", "m:B")


def test_the_line_of_a_setting_or_table_of_the_file_is_known(tmp_path, monkeypatch):
    file = write(tmp_path, "[models.a]\ntarget = 'm:A'\n\n[models.b]\n")
    assert place_in_file(("models", "b")) == f"{file}:4"
    assert place_in_file(("models", "a", "target"), file) == f"{file}:2"
    assert place_in_file(("models", "c")) is None
    file.unlink()
    assert place_in_file(("models", "b")) is None


def test_a_wrong_variable_is_named():
    said = complaint({"DUMBWAITER_GATEWAY__PROT": "80"})
    assert said.startswith("environment variable DUMBWAITER_GATEWAY__PROT: ")
    assert "did you mean 'port'" in said
    assert "DUMBWAITER_WORKER__GRACE" in complaint({"DUMBWAITER_WORKER__GRACE": "soon"})
    assert "is a table" in complaint({"DUMBWAITER_GATEWAY": "x"})


def test_a_variable_of_a_model_that_cannot_be_called_so_is_named():
    said = complaint({"DUMBWAITER_MODELS___SYSTEM__WEIGHT": "2"})
    assert said.startswith("environment variable DUMBWAITER_MODELS___SYSTEM__WEIGHT: '_system' cannot name a model")


def test_a_wrong_flag_is_named():
    assert complaint(flags=[Flag("--port", ("gateway", "port"), "http")]).startswith("--port: gateway.port")


def test_variables_that_are_not_settings_are_left_alone():
    load({"DUMBWAITER_DEBUG": "1", "DUMBWAITER_API_KEY": "dwk_1", "DUMBWAITER_CONFIG": "", "PATH": "/bin"})


def test_what_only_the_tests_of_dumbwaiter_itself_would_read_is_a_mistake_like_any_other():
    assert "DUMBWAITER_REQUIRE_ALL" in complaint({"DUMBWAITER_REQUIRE_ALL": "1"})
    assert "DUMBWAITER_KEDA_SCHEMAS" in complaint({"DUMBWAITER_KEDA_SCHEMAS": "keda"})


def test_variables_of_a_kubernetes_service_named_dumbwaiter_are_no_settings():
    load(
        {
            "DUMBWAITER_PORT": "tcp://10.0.0.7:80",
            "DUMBWAITER_SERVICE_HOST": "10.0.0.7",
            "DUMBWAITER_SERVICE_PORT": "80",
            "DUMBWAITER_PORT_80_TCP": "tcp://10.0.0.7:80",
            "DUMBWAITER_PORT_80_TCP_ADDR": "10.0.0.7",
            "DUMBWAITER_GATEWAY_SERVICE_PORT_HTTP": "80",
        }
    )
    assert "DUMBWAITER_GATEWAY_PORT" in complaint({"DUMBWAITER_GATEWAY_PORT": "80"})


def test_a_variable_reaches_a_model_whose_name_variables_cannot_spell(tmp_path):
    write(tmp_path, "[models.Text-Embedding]\ntarget = 'a:B'\n")
    models = load({"DUMBWAITER_MODELS__TEXT_EMBEDDING__MAX_BATCH": "7"}).models
    assert list(models) == ["Text-Embedding"]
    assert models["Text-Embedding"].max_batch == 7


def test_a_file_that_was_asked_for_must_exist(tmp_path):
    assert "no settings file" in complaint(path=tmp_path / "nope.toml")
    assert "no settings file" in complaint({"DUMBWAITER_CONFIG": str(tmp_path / "nope.toml")})


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("1.5s", 1.5), ("500ms", 0.5), ("2m", 120), ("1h", 3600), (" 2 d ", 172800)]
)
def test_durations_have_units(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "nbytes"), [("512", 512), ("100kB", 100_000), ("32MiB", 2**25), ("1.5GiB", 3 * 2**29)]
)
def test_sizes_have_units(text, nbytes):
    assert parse_size(text) == nbytes


@given(st.text(max_size=12))
def test_any_other_text_is_no_duration_and_says_what_would_be(text):
    if not re.fullmatch(r"\s*\d+(\.\d+)?\s*[A-Za-z]*\s*", text):
        with pytest.raises(ValueError, match="such as 500ms"):
            parse_duration(text)


@pytest.mark.parametrize(
    "origin", ["https://app.example.com", "http://localhost:3000", "http://[::1]:80", "app+x://y", "*"]
)
def test_pages_that_may_call_are_named_by_their_origin(origin):
    assert load({"DUMBWAITER_GATEWAY__CORS_ORIGINS": f"{origin.upper()}, http://b"}).gateway.cors_origins == [
        origin,
        "http://b",
    ]


@pytest.mark.parametrize("url", ["https://api.example.com", "HTTP://[::1]:8080/", "https://a.example:443/ml/v2"])
def test_links_may_begin_with_any_web_address(url):
    assert load({"DUMBWAITER_GATEWAY__PUBLIC_URL": url}).gateway.public_url == url


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("10.1.2.3/24", "write 10.1.2.0/24, or 10.1.2.3 for this one address"),
        ("fd00::1/64", "write fd00::/64, or fd00::1 for this one address"),
        ("example.com", "write one such as 10.1.2.0/24"),
        ("10.1.2.0/33", "write one such as 10.1.2.0/24"),
    ],
)
def test_a_network_that_is_none_is_refused_naming_its_place_and_what_to_write(tmp_path, wrong, words):
    file = write(tmp_path, f'[outbound]\nallowed_networks = ["10.0.0.0/8", "{wrong}"]')
    assert complaint() == f"{file}:2: outbound.allowed_networks: {wrong!r} is no network; {words}"
    file.unlink()
    variable = {"DUMBWAITER_OUTBOUND__ALLOWED_NETWORKS": wrong}
    with pytest.raises(ConfigError, match="environment variable DUMBWAITER_OUTBOUND__ALLOWED_NETWORKS: outbound"):
        load(variable)


def test_a_signing_key_that_is_too_short_is_refused_naming_its_place_and_never_shown(tmp_path):
    file = write(tmp_path, '[gateway]\nsigning_key = "s3cret"')
    assert complaint().startswith(f"{file}:2: gateway.signing_key: it has 6 bytes; it needs at least 32: openssl")
    file.unlink()
    with pytest.raises(ConfigError) as caught:
        load({"DUMBWAITER_GATEWAY__SIGNING_KEY": "s3cret"})
    assert str(caught.value).startswith("environment variable DUMBWAITER_GATEWAY__SIGNING_KEY: gateway.signing_key")
    assert "s3cret" not in str(caught.value)
    assert load({"DUMBWAITER_GATEWAY__SIGNING_KEY": "x" * 32}).gateway.signing_key == "x" * 32


@pytest.mark.parametrize(
    "wrong", ["api.example.com", "//api.example.com", "ftp://a.example", "https://", "https://a b", "https://a.b/?x=1"]
)
def test_a_public_url_without_a_scheme_or_with_more_than_a_path_is_refused_naming_its_place(tmp_path, wrong):
    file = write(tmp_path, f'[gateway]\npublic_url = "{wrong}"')
    assert complaint().startswith(
        f"{file}:2: gateway.public_url: {wrong!r} is no URL to put before paths; write https:"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        "app.example.com",
        "https://",
        "https://a.example/",
        "https://a.example/x",
        "https://*.a.example",
        "null",
        "http://a:b",
    ],
)
def test_what_is_no_origin_is_refused_naming_its_place(tmp_path, wrong):
    file = write(tmp_path, f'[gateway]\ncors_origins = ["https://a.example", "{wrong}"]')
    said = complaint()
    assert said.startswith(f"{file}:2: gateway.cors_origins: {wrong!r} is no origin; write https://app.example.com")


@pytest.mark.parametrize(
    "device",
    [
        *("auto", "none", "cuda", "cuda:1", "cuda:GPU-8f6a", "cuda:MIG-1/2", "host", "host:8GiB", "fake:8GiB?path=x"),
        "fake:1GB?context=300MiB&path=/x&cache=false",
    ],
)
def test_a_model_may_name_any_device(device):
    assert load({"DUMBWAITER_MODELS__CATS__DEVICE": device}).models["cats"].device == device


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("gpu", "'gpu' names no device; write auto, none, cuda, cuda:1, "),
        ("cdua:1", "'cdua:1' names no device; write auto, "),
        ("cuda:one", "'cuda:one' names no device; write auto, "),
        ("cuda:", "'cuda:' names no device; write auto, "),
        ("auto:1", "'auto:1' names no device; write auto, "),
        ("fake:8GiB", "'fake:8GiB' names no device; write auto, "),
        ("host:8 apples", "'host:8 apples': expected a size such as 512, 100kB or 32MiB, not '8 apples'"),
        ("host:0", "'host:0': expected a size above 0, such as 3GiB, not 0"),
        ("fake:0?path=x", "'fake:0?path=x': expected a size above 0"),
    ],
)
def test_what_is_no_device_is_refused_naming_its_place_and_what_to_write(tmp_path, wrong, words):
    file = write(tmp_path, f'[models.cats]\ntarget = "a:B"\ndevice = "{wrong}"')
    assert complaint().startswith(f"{file}:3: models.cats.device: {words}")


def test_the_device_that_was_meant_is_asked_for_after_the_forms_that_there_are(tmp_path):
    write(tmp_path, '[models.cats]\ntarget = "a:B"\ndevice = "cdua:1"')
    assert complaint().endswith("path=FOLDER; did you mean 'cuda'?")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("footprint = 0", "models.a.footprint: expected a size above 0, such as 3GiB, not 0"),
        ("footprint = -1", "models.a.footprint: expected a size above 0, such as 3GiB, not -1"),
        ("footprint = '3 elephants'", "models.a.footprint: expected a size such as 512, "),
        ("weight = 0", "models.a.weight: expected a number, above 0 and at most 1000, not 0"),
        ("weight = nan", "models.a.weight: expected a number, above 0 and at most 1000, not nan"),
        ("weight = inf", "models.a.weight: expected a number, above 0 and at most 1000, not inf"),
        ("park_after = 'never'", "models.a.park_after: expected a duration such as "),
    ],
)
def test_a_wrong_share_of_a_device_says_what_it_may_be(tmp_path, text, words):
    file = write(tmp_path, f"[models.a]\n{text}\n")
    assert complaint().startswith(f"{file}:2: {words}")


def test_a_models_share_of_its_device_is_read_with_its_units(tmp_path):
    write(tmp_path, '[models.a]\nfootprint = "3GiB"\nweight = 2\npark_after = "1h"\n[models.b]\npark_after = 0\n')
    a, b = load().models["a"], load().models["b"]
    assert (a.footprint, a.weight, a.park_after) == (3 * 2**30, 2.0, 3600.0)
    assert (b.footprint, b.weight, b.park_after) == (None, 1.0, 0.0)


def test_footprints_lie_beside_the_project_and_ledgers_where_the_settings_say(tmp_path):
    assert load().footprints == f"{tmp_path}/.dumbwaiter/footprints"
    write(tmp_path, 'ledgers = "shared"\nfootprints = "measured"\n')
    settings = load()
    assert (ledgers_folder(settings), settings.footprints) == (tmp_path / "shared", f"{tmp_path}/measured")


def test_without_a_word_ledgers_lie_in_memory_where_all_workers_of_this_user_find_them(tmp_path):
    name = f"dumbwaiter-{os.geteuid()}"
    assert ledgers_folder(Settings(), in_memory=tmp_path) == tmp_path / name
    elsewhere = ledgers_folder(Settings(), in_memory=tmp_path / "nowhere")
    assert elsewhere == Path(tempfile.gettempdir()) / name
    assert not (tmp_path / name).exists()


# --- scaling ---


def test_a_model_has_the_common_scaling_where_it_says_nothing_of_its_own(tmp_path):
    write(
        tmp_path,
        """
        [scaling]
        max_replicas = 4
        idle_after = "5m"
        [models.cats]
        target = "cats:Infer"
        [models.dogs]
        target = "dogs:Infer"
        [models.dogs.scaling]
        max_replicas = 9
        signal = "messages"
        """,
    )
    settings = load()
    cats, dogs = settings.models["cats"].scaling, settings.models["dogs"].scaling
    assert (cats.is_on, cats.max_replicas, cats.idle_after, cats.signal) == (True, 4, 300.0, "work")
    assert (dogs.max_replicas, dogs.idle_after, dogs.signal) == (9, 300.0, "messages")
    assert settings.scaling == cats


def test_without_a_most_number_a_model_keeps_its_replicas(tmp_path):
    write(tmp_path, '[models.cats]\ntarget = "cats:Infer"\nreplicas = 3\n[models.cats.scaling]\nidle_after = 5\n')
    model = load().models["cats"]
    assert (model.scaling.is_on, model.replicas) == (False, 3)


def test_scaling_is_set_by_variables_and_for_models_of_the_command_line_too(tmp_path):
    write(tmp_path, '[models.text-embedding]\ntarget = "text:Embed"\n')
    flags = [Flag("argument 'x'", ("models", "cats", "target"), "cats:Infer")]
    names = {
        "DUMBWAITER_SCALING__MAX_REPLICAS": "4",
        "DUMBWAITER_SCALING__DRAIN_TARGET": "500ms",
        "DUMBWAITER_SCALING__COLD_START": "2m",
        "DUMBWAITER_MODELS__TEXT_EMBEDDING__SCALING__MAX_REPLICAS": "2",
    }
    models = load(names, flags).models
    assert (models["cats"].scaling.max_replicas, models["cats"].scaling.drain_target) == (4, 0.5)
    assert models["cats"].scaling.cold_start == 120.0
    assert models["text-embedding"].scaling.max_replicas == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[scaling]\nmin_replicas = 3\nmax_replicas = 2\n", "dumbwaiter.toml:2: scaling.min_replicas: 3 is more than"),
        (
            '[scaling]\nmin_replicas = 3\n[models.cats]\ntarget = "c:I"\n[models.cats.scaling]\nmax_replicas = 2\n',
            "dumbwaiter.toml:2: scaling.min_replicas: 3 is more than max_replicas, which is 2",
        ),
        (
            '[models.cats]\ntarget = "c:I"\n[models.cats.scaling]\nmax_replicas = 2\nmin_replicas = 3\n',
            "dumbwaiter.toml:5: models.cats.scaling.min_replicas: 3 is more than max_replicas, which is 2",
        ),
        ('[scaling]\nsignal = "moon"\n', "dumbwaiter.toml:2: scaling.signal: "),
        ('[models.cats.scaling]\nidle_afte = "1s"\n', "did you mean 'idle_after'?"),
        ('[scaling]\nlook_every = "0s"\n', "dumbwaiter.toml:2: scaling.look_every: "),
        ("[scaling]\ncold_start = -1\n", "dumbwaiter.toml:2: scaling.cold_start: "),
        ("[scaling]\nmax_replicas = 0\n", "dumbwaiter.toml:2: scaling.max_replicas: "),
        ("[models.cats]\nscaling = 3\n", "dumbwaiter.toml:2: "),
        ("scaling = 3\n", "dumbwaiter.toml:1: "),
    ],
)
def test_wrong_scaling_is_named_with_its_place(tmp_path, text, said):
    write(tmp_path, text)
    assert said in complaint()
