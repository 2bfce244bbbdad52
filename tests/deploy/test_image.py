"""The Dockerfile that is rendered: what is in which layer, and how it runs. That it builds: tests/image."""

from __future__ import annotations

import json
import tomllib

import pytest
from one_machine import HOME, PASSWORD, PINNED, settings

from dumbwaiter.config import ModelSettings
from dumbwaiter.deploy.image import files, image_project_of
from dumbwaiter.deploy.requirements import Requirements
from dumbwaiter.errors import ConfigError
from processes import run_in


def rendered(folder=f"{HOME}/image", requirements=PINNED, base="python:3.11-slim", **more):
    return files(image_project_of(settings(**more), folder, base, requirements))


def instructions(text):
    """What the Dockerfile says, each with its continuation lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def last_stage(text):
    found = instructions(text)
    begin = max(number for number, line in enumerate(found) if line.startswith("FROM"))
    return found[begin:]


def test_what_changes_seldom_comes_first():
    copies = [line for line in last_stage(rendered()["Dockerfile"]) if line.startswith("COPY")]
    sources = ["--from=packages", "--from=weights", "--from=project", "image/dumbwaiter.toml"]
    assert [next(source for source in sources if source in line) for line in copies] == sources


def test_packages_are_installed_before_anything_of_the_project_is_seen():
    found = instructions(rendered()["Dockerfile"])
    packages = found[found.index("FROM ${BUILDER} AS packages") : found.index("FROM ${BASE} AS weights")]
    copied = [json.loads(line.removeprefix("COPY "))[0] for line in packages if line.startswith("COPY")]
    assert copied == ["image/requirements.txt", "image/wheels/"]
    assert any("pip check" in line for line in packages)


def test_requirements_in_pips_own_words_are_installed_by_themselves():
    as_is = Requirements(pins=PINNED.pins, source="", as_is="requirements.txt")
    found = instructions(rendered(requirements=as_is)["Dockerfile"])
    runs = [line for line in found if "--requirement" in line]
    assert [line.split("--requirement ")[1].split()[0] for line in runs] == [
        "/build/requirements.txt",
        "/build/pinned.txt",
    ]


def test_weights_are_a_layer_of_their_own_and_in_no_other():
    found = instructions(rendered()["Dockerfile"])
    assert 'COPY ["big/add.safetensors", "/app/big/add.safetensors"]' in found
    assert 'RUN ["rm", "-rf", "image", "big/add.safetensors"]' in found


def test_without_weights_of_the_project_there_is_no_such_layer():
    text = rendered(models={"add": ModelSettings(target="light:Add")})["Dockerfile"]
    assert "weights AS" not in text
    assert "--from=weights" not in text


def test_it_runs_as_nobody_who_may_do_anything_by_a_command_without_a_shell():
    found = last_stage(rendered()["Dockerfile"])
    by_name = {line.split()[0]: line for line in found}
    assert by_name["USER"] == "USER 10001:10001"
    assert json.loads(by_name["ENTRYPOINT"].removeprefix("ENTRYPOINT ")) == ["dumbwaiter"]
    health = by_name["HEALTHCHECK"].partition("CMD ")[2]
    assert json.loads(health) == ["dumbwaiter", "probe", "live"]
    assert found.index(by_name["USER"]) > max(number for number, line in enumerate(found) if line.startswith("RUN"))


def test_what_it_writes_lies_on_volumes_that_belong_to_it():
    found = last_stage(rendered()["Dockerfile"])
    volumes = json.loads(next(line for line in found if line.startswith("VOLUME")).removeprefix("VOLUME "))
    owned = (
        next(line for line in found if "chown" in line).partition("chown 10001:10001 ")[2].partition(" &&")[0].split()
    )
    assert {*volumes} <= {*owned}
    tree = tomllib.loads(rendered()["dumbwaiter.toml"])
    written = [tree["slots"], tree["footprints"], tree["heartbeat"], tree["blobs"].removeprefix("file:")]
    assert all(path.startswith(tuple(f"{volume}/" for volume in volumes)) for path in written)


def test_weights_that_are_fetched_are_kept_on_the_volume_too():
    models = {
        "a": ModelSettings(target="a:A", weights="s3://kitchen/a", project=f"{HOME}/a folder"),
        "b": ModelSettings(target="b:B", weights="gs://kitchen/b"),
    }
    found = instructions(rendered(models=models)["Dockerfile"])
    assert 'RUN ["ln", "-s", "/var/lib/dumbwaiter", "/app/a folder/.dumbwaiter"]' in found
    assert 'RUN ["ln", "-s", "/var/lib/dumbwaiter", "/app/.dumbwaiter"]' in found


def test_nothing_secret_is_in_any_file_and_settings_of_this_machine_are_left_out():
    found = rendered(broker=f"redis://chef:{PASSWORD}@redis:6379")
    assert PASSWORD not in "".join(found.values())
    ignored = found["Dockerfile.dockerignore"].splitlines()
    assert {"dumbwaiter.toml", "**/.env", "**/*.pem", "**/*.key", "**/secrets", "**/.dumbwaiter", ".git"} <= {*ignored}
    # The last pattern that fits decides.
    assert ignored.index("image/*") < ignored.index("!image/dumbwaiter.toml")


@pytest.mark.parametrize("folder", ["/srv/image", HOME])
def test_a_folder_that_is_not_within_the_project_is_refused(folder):
    with pytest.raises(ConfigError, match=f"such as {HOME}/image"):
        rendered(folder)


def test_a_folder_with_a_space_is_one_word_wherever_it_stands():
    as_is = Requirements(pins=PINNED.pins, source="", as_is="requirements.txt")
    text = rendered(f"{HOME}/my image", as_is)["Dockerfile"]
    named = [line for line in instructions(text) if "my image" in line]
    assert len(named) == 5
    for line in named:
        words = json.loads(line[line.index("[") :])
        assert [word for word in words if word.startswith("my image")], line


@pytest.mark.parametrize(
    "name", ["im\nRUN echo pwned #", "w$HOME", "a'b", 'a"b', "a\\b", "*", "#a", "!a", "a[1]", "<<END", " a", "-a"]
)
def test_paths_that_mean_something_else_in_a_dockerfile_are_refused(name):
    with pytest.raises(ConfigError, match="--output: an image is not built with"):
        rendered(f"{HOME}/{name}/image" if name != " a" else f"{HOME}/ a")
    with pytest.raises(ConfigError, match=r"in dumbwaiter\.toml: an image is not built with"):
        rendered(models={"add": ModelSettings(target="a:A", weights=f"{HOME}/{name}")})


@pytest.mark.parametrize("base", ["python:3.11-slim\nRUN echo pwned", "python slim", "$BASE", ""])
def test_a_base_that_is_no_name_of_an_image_is_refused(base):
    with pytest.raises(ConfigError, match="--base"):
        rendered(base=base)


@pytest.mark.parametrize("base", ["python:3.11-slim", "localhost:5000/base/python@sha256:0123", "ghcr.io/a/b_c:1.0"])
def test_a_base_with_a_host_and_a_digest_is_taken(base):
    assert f"ARG BASE={base}" in instructions(rendered(base=base)["Dockerfile"])


def project(folder, broker="redis://redis"):
    (folder / "light.py").write_text("class Add: ...\n")
    (folder / "requirements.txt").write_text("rich\n")
    (folder / "dumbwaiter.toml").write_text(f'broker = "{broker}"\n[models.add]\ntarget = "light:Add"\n')
    return folder


def test_the_command_writes_the_files_names_the_packages_and_says_how_to_build(tmp_path):
    shown = run_in(project(tmp_path), "deploy", "image")
    assert shown.returncode == 0, shown.stderr
    pins = (tmp_path / "image/requirements.txt").read_text()
    assert "dumbwaiter[redis]==" in pins
    assert "from requirements.txt, in the versions installed here" in shown.stdout
    assert f"docker build --file image/Dockerfile --tag NAME {tmp_path}" in shown.stdout
    assert run_in(tmp_path, "deploy", "image", "--check").stdout == "image is up to date\n"


def test_a_wheel_that_was_put_there_is_left_alone_and_does_not_count(tmp_path):
    run_in(project(tmp_path), "deploy", "image")
    (tmp_path / "image/wheels/big.whl").write_bytes(b"\x00" * 1000)
    assert run_in(tmp_path, "deploy", "image", "--check").returncode == 0
    assert (tmp_path / "image/wheels/big.whl").exists()


def test_check_finds_another_base_another_extra_and_another_broker(tmp_path):
    run_in(project(tmp_path), "deploy", "image")
    assert "changed image/Dockerfile" in run_in(tmp_path, "deploy", "image", "--check", "--base", "python:3.12").stdout
    assert "changed image/requirements.txt" in run_in(tmp_path, "deploy", "image", "--check", "--extra", "nats").stdout
    changed = run_in(tmp_path, "deploy", "image", "--check", "--broker", "amqp://rabbit")
    assert changed.returncode == 1
    assert "changed image/requirements.txt" in changed.stdout
