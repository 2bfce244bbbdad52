"""The README's own model is served as it stands, and its commands and its Python are run."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from processes import environment, starting

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_model_of_the_readme_is_served_and_asked_as_it_says(tmp_path):
    model, client = fenced("python")
    (tmp_path / "network.py").write_text(model)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with starting(tmp_path) as start:
        serving = start("network:Infer").ready()
        (curl,) = re.findall(r"^curl .*$", README, re.MULTILINE)
        url = f"{serving.gateway}/v1/models/infer/predictions"
        assert curl.endswith(" http://127.0.0.1:8080/v1/models/infer/predictions")
        body = (tmp_path / re.search(r"@(\S+)", curl)[1]).read_bytes()
        by_rest = httpx.post(url, content=body, headers={"Content-Type": "image/jpeg"}, timeout=40, trust_env=False)
        assert len(by_rest.json()["output"]) == 10
        pictures = sorted(str(file.relative_to(tmp_path)) for file in (tmp_path / "examples").glob("*.jpg"))
        submitted = serving.run("submit", "infer", *pictures)
        assert submitted.returncode == 0, submitted.stderr
        assert [line.partition("\t")[0] for line in submitted.stdout.splitlines()] == pictures
        command = [sys.executable, "-c", client]
        ran = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        outputs = [ast.literal_eval(line) for line in ran.stdout.splitlines()]
        assert by_rest.json()["output"] in outputs
        assert serving.run("queues").stdout.split()[:6] == ["queue", "ready", "locked", "delayed", "dead", "oldest"]


def test_each_make_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)\b", README)) <= targets
