"""Versions that no index but their vendor's has: where they are found is said, and which of them use no GPU."""

from __future__ import annotations

import shlex

import pytest
from one_machine import HOME, settings

from dumbwaiter.config import ModelSettings
from dumbwaiter.deploy.image import files, image_project_of
from dumbwaiter.deploy.requirements import Requirements
from dumbwaiter.deploy.vendors import UNKNOWN, doubts, indexes, told
from processes import run_in

CPU, CUDA = "https://download.pytorch.org/whl/cpu", "https://download.pytorch.org/whl/cu130"
ON_GPU = {"infer": ModelSettings(target="network:Infer")}


def pinned(*pins, **more):
    return Requirements(pins=["dumbwaiter[redis]==0.1.0", *pins], source="requirements.txt", **more)


def readme(found):
    return files(image_project_of(settings(), f"{HOME}/image", "python:3.11-slim", found))["README.md"]


def test_builds_of_pytorch_are_looked_for_where_pytorch_has_them():
    found = pinned("torch==2.13.0+cpu", "torchvision==0.28.0+cpu", "torchaudio==2.13.0+cu130", "redis==7.1.0")
    assert indexes(found) == [CPU, CUDA]
    assert next(told(found)) == f"`torch==2.13.0+cpu` is in no index but its vendor's, {CPU}"


@pytest.mark.parametrize("pin", ["kitchen==1.0+house", "torch==2.9.0+nv25.09"])
def test_of_other_builds_it_is_said_that_somebody_must_know(pin):
    found = pinned(pin)
    assert indexes(found) == [UNKNOWN]
    (line,) = told(found)
    assert pin in line
    assert "wheels/" in line


def test_what_becomes_a_wheel_here_is_asked_of_nobody():
    found = Requirements(pins=["dumbwaiter[redis]==0.1.0+d2"], source="", local={"dumbwaiter": "/src/dumbwaiter"})
    assert not indexes(found)


def test_the_commands_of_the_readme_name_the_index():
    text = readme(pinned("torch==2.13.0+cpu", "kitchen==1.0+house"))
    for line in (line for line in text.splitlines() if line.startswith(("docker build", "podman build"))):
        words = shlex.split(line)
        assert words[words.index("--build-arg") + 1] == f"PIP_EXTRA_INDEX_URL={CPU} {UNKNOWN}"
    assert "- `torch==2.13.0+cpu` computes on the CPU alone" in text
    assert "--build-arg PIP" not in readme(pinned("torch==2.13.0"))


@pytest.mark.parametrize("device", ["auto", "cuda:1"])
def test_a_gpu_for_a_build_that_uses_none_is_doubted(device):
    models = {**ON_GPU, "add": ModelSettings(target="light:Add", device="none")}
    models["infer"] = ModelSettings(target="network:Infer", device=device)
    (line,) = doubts(pinned("torch==2.13.0+cpu"), settings(models=models))
    assert f'models.infer ("{device}")' in line
    assert "models.add" not in line
    assert 'device = "none"' in line


@pytest.mark.parametrize(("pin", "device"), [("torch==2.13.0+cu130", "auto"), ("torch==2.13.0+cpu", "host")])
def test_a_build_that_fits_its_models_is_not(pin, device):
    models = {"infer": ModelSettings(target="network:Infer", device=device)}
    assert not list(doubts(pinned(pin), settings(models=models)))


def test_the_command_says_it_and_prints_a_build_that_finds_them(tmp_path):
    installed = tmp_path / "site" / "torchaudio-99.1+cpu.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 99.1+cpu\n")
    (tmp_path / "requirements.txt").write_text("torchaudio\n")
    (tmp_path / "dumbwaiter.toml").write_text('[models.infer]\ntarget = "network:Infer"\n')
    shown = run_in(tmp_path, "deploy", "image", PYTHONPATH=str(installed.parent))
    assert shown.returncode == 0, shown.stderr
    assert f"note: torchaudio==99.1+cpu is in no index but its vendor's, {CPU}\n" in shown.stdout
    assert 'warning: torchaudio==99.1+cpu computes on the CPU alone, and a GPU is given to models.infer ("auto")' in (
        shown.stdout
    )
    assert f"  docker build --build-arg PIP_EXTRA_INDEX_URL={CPU} --file image/Dockerfile" in shown.stdout
