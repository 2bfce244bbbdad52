"""What may be secret is in no rendered file, and each file says how it is given instead."""

from __future__ import annotations

import subprocess
import tomllib

import pytest
import yaml
from one_machine import settings as on_one_machine
from projects import project
from projects import settings as in_a_cluster

from dumbwaiter.config import ModelSettings, load_settings
from dumbwaiter.deploy import compose, helm, image, systemd
from dumbwaiter.deploy.hiding import looks_secret, without_secrets
from dumbwaiter.deploy.image import Requirements
from dumbwaiter.deploy.kubernetes import project_of
from dumbwaiter.deploy.kubernetes.files import files as kubernetes_files
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
        systemd.systemd_project_of(on_one_machine(models=models()), "/opt/kitchen", environ=ENVIRON)
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


def test_a_url_with_a_password_is_secret_whatever_it_is_called():
    assert looks_secret("database", "postgres://chef:hunter2@db/kitchen")
    assert not looks_secret("database", "postgres://db/kitchen")
    assert not looks_secret("note", "a: b@c")


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
    given = in_a_cluster(env=[f"HF_TOKEN={HUSH}", "AWS_REGION=eu-central-1"], blobs="s3://kitchen")
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
        ("models.a.weights", lambda: systemd.systemd_project_of(on_one_machine(models=of_model), "/opt/x")),
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
    (file,) = {file for service in services.values() for file in service.get("env_file", [])}
    assert [name for name, service in services.items() if "env_file" in service] == ["worker-text-embedding-46f5d779"]
    assert file == "./secrets/text-embedding-46f5d779.env"


def test_nothing_is_prepared_before_that_file_is_there(tmp_path):
    (tmp_path / "prepare.sh").write_text(RENDERINGS["compose"]()["prepare.sh"])
    ran = subprocess.run(["sh", "prepare.sh"], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 1
    assert "first write secrets/text-embedding-46f5d779.env" in ran.stderr
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
        lambda: systemd.systemd_project_of(on_one_machine(models=strange), "/opt/x"),
    ):
        with pytest.raises(ConfigError, match="cannot be called so"):
            render()
