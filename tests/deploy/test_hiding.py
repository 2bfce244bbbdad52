"""What may be secret is in no rendered file, and each file says how it is given instead."""

from __future__ import annotations

import subprocess
import tomllib

import pytest
import yaml
from one_machine import PASSWORD, PINNED
from one_machine import settings as on_one_machine
from projects import project
from projects import settings as in_a_cluster

from dumbwaiter.config import GatewaySettings, ModelSettings, load_settings
from dumbwaiter.deploy import compose, helm, image, systemd
from dumbwaiter.deploy.hiding import looks_secret, without_secrets
from dumbwaiter.deploy.kubernetes import project_of
from dumbwaiter.deploy.kubernetes.files import files as kubernetes_files
from dumbwaiter.deploy.requirements import Requirements
from dumbwaiter.errors import ConfigError
from processes import run_in

HUSH = "hush-hush"
TOKEN = "DUMBWAITER_MODELS__TEXT_EMBEDDING__PARAMETERS__LOGIN__HF_TOKEN"
DELAY = "DUMBWAITER_MODELS__TEXT_EMBEDDING__PARAMETERS__DELAY"
ENVIRON = {DELAY: HUSH, "PATH": "/bin"}


def models(**parameters):
    found = parameters or {"login": {"hf_token": HUSH, "user": "chef"}, "delay": HUSH, "note": "as it is"}
    return {
        "Text.Embedding": ModelSettings(target="a:A", device="none", parameters=found),
        "b": ModelSettings(target="b:B"),
    }


def for_an_image(**more):
    pins = Requirements(pins=["dumbwaiter==1.0"], source="requirements.txt")
    of = on_one_machine(models=models(), **more)
    return image.files(image.image_project_of(of, f"{of.home}/image", "python:3.11-slim", pins, ENVIRON))


RENDERINGS = {
    "kubernetes": lambda: kubernetes_files(project_of(in_a_cluster(models=models()), environ=ENVIRON)),
    "helm": lambda: helm.files(project_of(in_a_cluster(models=models()), environ=ENVIRON)),
    "image": for_an_image,
    "compose": lambda: compose.files(
        compose.compose_project_of(on_one_machine(models=models()), "kitchen:1", environ=ENVIRON)
    ),
    "systemd": lambda: systemd.files(
        systemd.systemd_project_of(on_one_machine(models=models()), "/opt/kitchen", PINNED, environ=ENVIRON)
    ),
}


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_parameters_that_may_be_secret_are_in_no_file_and_the_page_names_the_variables(rendering):
    found = RENDERINGS[rendering]()
    for name, text in found.items():
        assert HUSH not in text, name
    assert TOKEN in found["README.md"]
    assert DELAY in found["README.md"]
    assert any("as it is" in text for text in found.values())


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("hf_token", True),
        ("apiKey", True),
        ("API-KEY", True),
        ("secret", True),
        ("db.password", True),
        ("AWS_ACCESS_KEY_ID", True),
        ("DB_PASS", True),
        ("SMTP_PASS", True),
        ("RABBITMQ_DEFAULT_PASS", True),
        ("PGPASSWORD", True),
        ("dbpassword", True),
        ("dbPass", True),
        ("OPENAIAPIKEY", True),
        ("API_KEYS", True),
        ("api_key_2", True),
        ("SECRET_KEY_BASE", True),
        ("REDISCLI_AUTH", True),
        ("AUTHORIZATION", True),
        ("AZURE_CONNECTION_STRING", True),
        ("auth_tokens", True),
        ("hf_tokens", True),
        ("HF_TOKENS", True),
        ("userTokens", True),
        ("admin_tokens", True),
        ("api_key_v2", True),
        ("API_KEY_V2", True),
        ("apiKeyV2", True),
        ("TOKEN_V10", True),
        ("author", False),
        ("passes", False),
        ("compass", False),
        ("filter_bypass", False),
        ("low_pass", False),
        ("secret_name", False),
        ("sort_keys", False),
        ("stop_tokens", False),
        ("additional_special_tokens", False),
        ("maxTokens", False),
        ("MAX_NUM_BATCHED_TOKENS", False),
        ("two_pass_v2", False),
        ("tokenizer", False),
        ("max_tokens", False),
        ("pad_token", False),
        ("key", False),
        ("monkey", False),
    ],
)
def test_names_tell_what_is_secret(name, secret):
    assert looks_secret(name, "x") is secret
    assert not looks_secret(name, 5)


@pytest.mark.parametrize(
    "value",
    [
        "postgres://chef:hunter2@db/kitchen",
        "postgres://chef:hun/ter2@db/kitchen",
        "https://hunter2@sentry.example.com/7",
        "https://store.example.com/weights?sig=hunter2",
        "the kitchen's is postgres://chef:hunter2@db/kitchen, and nobody else's",
        "DefaultEndpointsProtocol=https;AccountName=kitchen;AccountKey=aHVudGVyMg==",
        "Endpoint=sb://kitchen.example.com/;SharedAccessKeyName=chef;SharedAccessKey=aHVudGVyMg==",
        "AccountKey=aHVudGVyMg==",
        "host=db user=chef password = hunter2",
        "Server=db;Uid=chef;Pwd=hunter2",
        "sv=2026-01-01&sig=hunter2",
        "Authorization=Bearer hunter2",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nhunter2",
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nhunter2",
    ],
)
def test_a_text_with_a_secret_in_it_is_secret_whatever_it_is_called(value):
    assert looks_secret("note", value)


@pytest.mark.parametrize(
    "value",
    [
        "postgres://db/kitchen",
        "https://example.com/@chef/weights",
        "file:///models/a?b@c",
        "a: b@c",
        "What does https://example.com/a?b=c say?",
        "ask chef@example.com for the password",
        "password=",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----",
    ],
)
def test_a_text_with_none_is_not(value):
    assert not looks_secret("note", value)


def test_what_lies_in_a_table_or_list_with_a_secret_name_is_hidden_and_reaches_the_model(tmp_path):
    parameters = {
        "credentials": {"user": HUSH, "depth": 2},
        "login": {"api_keys": [HUSH, HUSH], "shared_keys": [1, 2], "access_keys": []},
        "hf_tokens": [HUSH],
        "pad_token": ["<pad>"],
        "stop_tokens": ["</s>"],
    }
    of = in_a_cluster(models={"a": ModelSettings(target="a:A", device="none", parameters=parameters)})
    kept, hidden = without_secrets(of, {})
    assert kept.models["a"].parameters == {
        "credentials": {"depth": 2},
        "login": {"shared_keys": [1, 2], "access_keys": []},
        "pad_token": ["<pad>"],
        "stop_tokens": ["</s>"],
    }
    values = {
        "DUMBWAITER_MODELS__A__PARAMETERS__CREDENTIALS__USER": HUSH,
        "DUMBWAITER_MODELS__A__PARAMETERS__LOGIN__API_KEYS": f'["{HUSH}", "{HUSH}"]',
        "DUMBWAITER_MODELS__A__PARAMETERS__HF_TOKENS": f'["{HUSH}"]',
    }
    assert {each.variable for each in hidden} == values.keys()
    (tmp_path / "dumbwaiter.toml").write_text(
        '[models.a]\ntarget = "a:A"\n[models.a.parameters]\ncredentials.depth = 2\npad_token = ["<pad>"]\n'
        'stop_tokens = ["</s>"]\n'
        "login.shared_keys = [1, 2]\nlogin.access_keys = []\n"
    )
    given = load_settings(tmp_path / "dumbwaiter.toml", environ=values)
    assert given.models["a"].parameters == parameters


def test_what_is_hidden_reaches_the_model_by_its_variables(tmp_path):
    """Both ends agree on the spelling: what settings are read from the rest of them and the variables."""
    of = project_of(in_a_cluster(models=models()), environ=ENVIRON)
    (config,) = [text for name, text in kubernetes_files(of).items() if name.startswith("config-map")]
    file = tmp_path / "dumbwaiter.toml"
    file.write_text(yaml.safe_load(config)["data"]["dumbwaiter.toml"])
    given = load_settings(file, environ={each.variable: HUSH for each in of.hidden})
    assert given.models["Text.Embedding"].parameters == models()["Text.Embedding"].parameters


def test_in_a_cluster_they_come_from_the_secret_and_only_to_their_workers():
    texts = kubernetes_files(project_of(in_a_cluster(models=models()), environ=ENVIRON))
    keys = yaml.safe_load(texts["secret.example.yaml"])["stringData"]
    assert {TOKEN, DELAY} <= keys.keys()
    for name, text in texts.items():
        if name.startswith("deployment-"):
            (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
            found = {one["name"]: one.get("valueFrom", {}).get("secretKeyRef") for one in container["env"]}
            assert (found.get(TOKEN) == {"name": "dumbwaiter", "key": TOKEN}) is ("text-embedding" in name), name


def test_variables_of_pods_that_may_be_secret_come_from_the_secret_under_their_names():
    secret = [f"HF_TOKEN={HUSH}", f"HF_TOKENS={HUSH}", f"API_KEY_V2={HUSH}", f"PGPASSWORD={HUSH}"]
    secret += [f"SENTRY_DSN=https://{HUSH}@sentry.example.com/7"]
    given = in_a_cluster(env=[*secret, "AWS_REGION=eu-central-1"], blobs="s3://kitchen")
    texts = kubernetes_files(project_of(given))
    assert HUSH not in "".join(texts.values())
    gateway = yaml.safe_load(texts["deployment-gateway.yaml"])["spec"]["template"]["spec"]["containers"][0]["env"]
    found = {one["name"]: one for one in gateway}
    assert len(found) == len(gateway)
    assert found["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "HF_TOKEN"
    assert found["AWS_REGION"]["value"] == "eu-central-1"
    assert "HF_TOKEN" in texts["README.md"]


def test_variables_of_pods_that_came_from_a_variable_are_all_hidden():
    of = project_of(in_a_cluster(env=[f"COLOUR={HUSH}"]), environ={"DUMBWAITER_KUBERNETES__ENV": f"COLOUR={HUSH}"})
    assert HUSH not in "".join(kubernetes_files(of).values())


@pytest.mark.parametrize("url", [f"s3://key:{HUSH}@bucket/x", f"az://acct/container?sig={HUSH}"])
def test_a_store_or_weights_whose_url_has_something_secret_are_refused_without_telling_it(url):
    of_model = {"a": ModelSettings(target="a:A", weights=url)}
    for what, render in (
        ("blobs", lambda: project(blobs=url)),
        ("models.a.weights", lambda: project(models=of_model)),
        ("blobs", lambda: for_an_image(blobs=url)),
        ("models.a.weights", lambda: systemd.systemd_project_of(on_one_machine(models=of_model), "/opt/x", PINNED)),
        ("models.a.weights", lambda: compose.files(compose.compose_project_of(on_one_machine(models=of_model), "x"))),
    ):
        with pytest.raises(ConfigError) as refused:
            render()
        assert str(refused.value).startswith(f"{what}: ")
        assert HUSH not in str(refused.value)


def test_weights_with_their_digest_are_no_secret():
    of = project(models={"a": ModelSettings(target="a:A", weights=f"s3://bucket/x#sha256={'0' * 64}")})
    assert of.settings.models["a"].weights.endswith("0" * 64)


@pytest.mark.parametrize(
    ("broker", "table"),
    [
        ("rabbitmq", {"monitor": f"http://chef:{HUSH}@rabbit:15672"}),
        (f"nats://nats?monitor=http://chef:{HUSH}@nats:8222", {}),
        (f"pulsar://pulsar?admin=http://pulsar:8080/?token={HUSH}", {}),
    ],
)
def test_no_native_trigger_shows_who_asks(broker, table):
    with pytest.raises(ConfigError) as refused:
        kubernetes_files(project(broker, trigger="native", **table))
    assert HUSH not in str(refused.value)


@pytest.mark.parametrize("parameters", [{"api key": HUSH}, {"apiKey": HUSH}, {"all": [{"token": HUSH}]}])
def test_what_no_variable_can_give_is_refused_by_name(parameters):
    with pytest.raises(ConfigError, match=r"models\.Text\.Embedding\.parameters\..* rename it") as refused:
        without_secrets(in_a_cluster(models=models(**parameters)), {})
    assert HUSH not in str(refused.value)


def test_a_variable_that_would_mean_two_models_is_refused():
    both = {name: ModelSettings(target="a:A", parameters={"token": HUSH}) for name in ("a.b", "a-b")}
    with pytest.raises(ConfigError, match=r"any of the models a\.b, a-b"):
        without_secrets(in_a_cluster(models=both), {})


def test_on_one_machine_each_worker_reads_a_file_of_its_own():
    units = RENDERINGS["systemd"]()
    for name, text in units.items():
        asks = "EnvironmentFile=/etc/dumbwaiter/Text.Embedding.env\n" in text
        assert asks is (name == "dumbwaiter-worker-Text.Embedding@.service"), name
    services = yaml.safe_load(RENDERINGS["compose"]()["compose.yaml"])["services"]
    worker = "worker-text-embedding-46f5d779"
    files = {name: service["env_file"] for name, service in services.items() if "env_file" in service}
    assert [name for name in files if name.startswith("worker-")] == [worker]
    assert files[worker] == ["./secrets/text-embedding-46f5d779.env"]


@pytest.mark.parametrize("rendering", ["image", "compose", "systemd"])
def test_who_signs_gets_the_signing_key_of_the_settings_by_a_variable_and_nobody_else(rendering):
    found = RENDERINGS[rendering]()
    assert not [name for name, text in found.items() if PASSWORD in text]
    assert "DUMBWAITER_GATEWAY__SIGNING_KEY" in found["README.md"]
    signers = {"gateway", "courier"}
    if rendering == "systemd":
        line = "EnvironmentFile=/etc/dumbwaiter/_gateway.env\n"
        assert {name for name, text in found.items() if line in text} == {
            f"dumbwaiter-{one}.service" for one in signers
        }
        assert "/etc/dumbwaiter/_gateway.env" in found["README.md"]
    elif rendering == "compose":
        services = yaml.safe_load(found["compose.yaml"])["services"]
        file = "./secrets/_gateway.env"
        assert {name for name, service in services.items() if file in service.get("env_file", [])} == signers
        assert "secrets/_gateway.env" in found["README.md"]


def test_in_a_cluster_the_signing_key_comes_from_the_secret_once():
    key = f"{PASSWORD}-and-32-bytes-of-it-at-the-least"
    texts = kubernetes_files(project_of(in_a_cluster(gateway=GatewaySettings(signing_key=key))))
    assert PASSWORD not in "".join(texts.values())
    for name in ("gateway", "courier"):
        (container,) = yaml.safe_load(texts[f"deployment-{name}.yaml"])["spec"]["template"]["spec"]["containers"]
        (given,) = [one for one in container["env"] if one["name"] == "DUMBWAITER_GATEWAY__SIGNING_KEY"]
        assert given["valueFrom"]["secretKeyRef"]["key"] in yaml.safe_load(texts["secret.example.yaml"])["stringData"]


def test_without_a_signing_key_nobody_waits_for_a_file_of_it():
    of = on_one_machine(gateway=GatewaySettings())
    for found in (
        compose.files(compose.compose_project_of(of, "kitchen:1")),
        systemd.files(systemd.systemd_project_of(of, "/opt/kitchen", PINNED)),
    ):
        assert "_gateway" not in "".join(found.values())


def test_nothing_is_prepared_before_that_file_is_there(tmp_path):
    (tmp_path / "prepare.sh").write_text(RENDERINGS["compose"]()["prepare.sh"])
    for file in ("secrets/_gateway.env", "secrets/text-embedding-46f5d779.env"):
        ran = subprocess.run(
            ["sh", "prepare.sh"], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
        )
        assert ran.returncode == 1
        assert f"first write {file}" in ran.stderr
        (tmp_path / file).write_text("A=b\n")
    assert not (tmp_path / "secrets/password").exists()


@pytest.mark.parametrize("kind", ["kubernetes", "helm", "compose", "systemd", "image"])
def test_the_command_leaves_out_what_came_from_a_variable_and_says_so(kind, tmp_path):
    (tmp_path / "requirements.txt").write_text("rich\n")
    (tmp_path / "dumbwaiter.toml").write_text(
        'broker = "redis://redis"\nblobs = "s3://kitchen"\n[kubernetes]\nimage = "kitchen:1"\n'
        '[scaler]\nhost = "10.0.0.7"\n[models.a]\ntarget = "a:A"\n'
    )
    given = {"DUMBWAITER_MODELS__A__PARAMETERS__DEPTH": HUSH}
    options = [] if kind == "image" else ["--unmeasured"]
    shown = run_in(tmp_path, "deploy", kind, "--output", "out", *options, **given)
    assert shown.returncode == 0, shown.stderr
    assert "the variable DUMBWAITER_MODELS__A__PARAMETERS__DEPTH gives it there" in shown.stdout
    texts = {path.name: path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not [name for name, text in texts.items() if HUSH in text]
    for name in texts.keys() & {"dumbwaiter.toml", "settings.toml"}:
        assert tomllib.loads(texts[name])["scaler"] == {"host": "10.0.0.7"}


def test_models_with_names_that_no_queue_may_have_are_refused():
    strange = {'a"$b {{x': ModelSettings(target="a:A")}
    for render in (
        lambda: project(models=strange),
        lambda: systemd.systemd_project_of(on_one_machine(models=strange), "/opt/x", PINNED),
    ):
        with pytest.raises(ConfigError, match="cannot name a model"):
            render()
