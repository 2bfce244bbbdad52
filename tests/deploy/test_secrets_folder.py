"""What the rendered pages say to write as a secret is taken neither by git, nor by an image, nor by a chart."""

from __future__ import annotations

import re
import subprocess

import pytest
from one_machine import HOME, PINNED
from one_machine import settings as on_one_machine
from projects import project, settings

from dumbwaiter.deploy import compose, helm, image, systemd
from dumbwaiter.deploy.folders import RENDERED
from dumbwaiter.deploy.image.left_out import rendered_in
from dumbwaiter.deploy.kubernetes.files import files as kubernetes_files
from dumbwaiter.deploy.writing import write
from processes import run_in

FILES = {
    "kubernetes": lambda: kubernetes_files(project()),
    "chart": lambda: helm.files(project()),
    "compose": lambda: compose.files(compose.compose_project_of(on_one_machine(), "kitchen:1")),
    "systemd": lambda: systemd.files(systemd.systemd_project_of(open_to_callers(), "/opt/kitchen", PINNED)),
}
SECRET = re.compile(r"(?:> |tee |--from-file=|`)((?:[\w./-]*/)?(?:key\.txt|broker-url|[\w.-]+\.env|AWS_\w+))")


def open_to_callers():
    found = settings().gateway
    return on_one_machine(gateway=type(found)(host="0.0.0.0"))


def written_by_hand(text):
    """The files below its folder into which the page says to write something secret."""
    return [name for name in SECRET.findall(text) if not name.startswith("/")]


def kept_out_of_the_image(root, **more):
    pytest.importorskip("docker", reason="RULE NOT CHECKED: pip install docker reads .dockerignore")
    from docker.utils.build import exclude_paths

    of = image.image_project_of(on_one_machine(), f"{HOME}/image", "python:3.11-slim", PINNED, **more)
    patterns = [line for line in image.files(of)["Dockerfile.dockerignore"].splitlines() if not line.startswith("#")]
    everything = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return everything - exclude_paths(str(root), patterns)


@pytest.mark.parametrize("folder", [*RENDERED, "elsewhere"])
def test_secrets_are_written_where_neither_git_nor_an_image_takes_them(folder, tmp_path):
    found = FILES[folder if folder in FILES else "kubernetes"]()
    secret = {f"{folder}/{name}" for name in written_by_hand(found["README.md"])}
    assert secret
    write(tmp_path / folder, found)
    for name in secret:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("hush")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    seen = subprocess.run(
        ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert f"{folder}/README.md" in seen
    assert not secret & {*seen}
    assert secret <= kept_out_of_the_image(tmp_path)


def test_a_chart_does_not_take_them_to_the_cluster():
    assert "secrets/" in FILES["chart"]()[".helmignore"].splitlines()


def test_nothing_of_what_is_rendered_is_in_the_image_but_a_package_of_that_name_is(tmp_path):
    write(tmp_path / "compose", FILES["compose"]())
    (tmp_path / "compose/key.txt").write_text("hush")
    (tmp_path / "chart").mkdir()
    (tmp_path / "chart/__init__.py").write_text("")
    assert rendered_in(tmp_path) == ["kubernetes", "compose", "systemd"]
    gone = kept_out_of_the_image(tmp_path, left_out=rendered_in(tmp_path))
    assert gone == {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "compose").iterdir()}


def test_what_is_rendered_later_leaves_the_image_up_to_date(tmp_path):
    (tmp_path / "requirements.txt").write_text("rich\n")
    (tmp_path / "dumbwaiter.toml").write_text('[models.add]\ntarget = "light:Add"\n')
    assert run_in(tmp_path, "deploy", "image").returncode == 0
    assert run_in(tmp_path, "deploy", "compose").returncode == 0
    assert run_in(tmp_path, "deploy", "image", "--check").stdout == "image is up to date\n"
