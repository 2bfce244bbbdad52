"""A machine with the image on it, built once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from containers import BASE, IMAGE, Machine, base_image, rendered_project

from dumbwaiter.testing.servers import RedisServer, redis_program


@pytest.fixture(scope="session")
def machine(tmp_path_factory):
    base = base_image()
    folder = tmp_path_factory.mktemp("image")
    it = Machine(Path(tempfile.mkdtemp(prefix="kitchen-")))  # podman wants a short path
    try:
        (folder / "base").mkdir()
        shutil.copyfile(base, folder / "base" / "base.tar")
        (folder / "base" / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        it.build(folder / "base", BASE)
        project = rendered_project(folder / "kitchen")
        arguments = ("--build-arg", f"BASE={BASE}", "--build-arg", "PIP_NO_INDEX=1")
        files = ("--file", f"{project}/image/Dockerfile", "--ignorefile", f"{project}/image/Dockerfile.dockerignore")
        it.build(project, IMAGE, *arguments, *files)
        yield it
    finally:
        it.close()


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(redis_program(), tmp_path / "redis")
    server.start()
    yield server
    server.stop()
