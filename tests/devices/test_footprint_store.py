"""Footprints outlive their process; what is wrong with their files costs a measurement and never the worker."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import resource
import shutil
from pathlib import Path

import pytest

from dumbwaiter.devices.footprint_store import VERSION, FootprintStore, device_key, key_of
from dumbwaiter.devices.opening import open_device
from dumbwaiter.policies.footprints import Footprint, Measured

MIB = 1 << 20
FOOTPRINT = Footprint(
    context=300 * MIB,
    weights=2 << 30,
    parked=5 * MIB,
    load_seconds=3.5,
    batches={"3x224x224": {1: Measured(10 * MIB, 0.01, 1.8e9), 8: Measured(80 * MIB, 0.05, 1.8e9, 1.9e9, "at_most")}},
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state" / "footprints"


@pytest.fixture
def store(folder):
    return FootprintStore(folder)


@contextlib.contextmanager
def full_disk():
    """Each write into a file fails after its first byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def warnings_in(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_was_saved_is_loaded_by_another_process_as_it_was(store, folder) -> None:
    store.save("key", FOOTPRINT)
    assert FootprintStore(folder).load("key") == FOOTPRINT
    assert [path.name for path in folder.iterdir()] == ["key.json"]


def test_what_was_never_saved_is_unknown_and_nothing_to_warn_of(store, caplog) -> None:
    assert store.load("key") is None
    store.save("other", FOOTPRINT)
    assert store.load("key") is None
    assert not warnings_in(caplog)


@pytest.mark.parametrize("key", ["../../etc/passwd", "a/b", ".", "", "ü" * 300, "x" * 101, "nul\0", "\ud800"])
def test_any_key_names_a_file_in_the_folder(store, folder, key) -> None:
    store.save(key, FOOTPRINT)
    assert store.load(key) == FOOTPRINT
    assert len(list(folder.iterdir())) == 1
    assert store.load(key + "!") is None


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"footprint": {}}',
        b'{"version": "one", "footprint": {}}',
        b'{"version": 1, "footprint": {"weights": "large"}}',
        b'{"version": 1, "footprint": {"weights": -1}}',
        b'{"version": 1, "footprint": {"weights": 9999999999999999999}}',
        b'{"version": 1, "footprint": {"batches": {"b": {"0": [1, 1.0, 1.0]}}}}',
        b'{"version": 1, "footprint": {"batches": {"b": {"1": [-1, 1.0, 1.0]}}}}',
        b'{"version": 1, "footprint": {"batches": {"b": {"one": [1, 1.0, 1.0]}}}}',
    ],
)
def test_a_damaged_file_is_warned_of_and_measured_again(store, folder, caplog, damaged) -> None:
    store.save("key", FOOTPRINT)
    (folder / "key.json").write_bytes(damaged)
    assert store.load("key") is None
    (warning,) = warnings_in(caplog)
    assert str(folder / "key.json") in warning
    assert "measured again" in warning
    store.save("key", FOOTPRINT)
    assert store.load("key") == FOOTPRINT


def test_a_file_that_cannot_be_read_is_warned_of(store, folder, caplog) -> None:
    (folder / "key.json").mkdir(parents=True)
    assert store.load("key") is None
    assert "Is a directory" in warnings_in(caplog)[0]


def test_a_form_of_another_version_is_measured_again_without_alarm(store, folder, caplog) -> None:
    store.save("key", FOOTPRINT)
    path = folder / "key.json"
    path.write_bytes(path.read_bytes().replace(b'"version":%d' % VERSION, b'"version":%d' % (VERSION + 1)))
    with caplog.at_level(logging.INFO):
        assert store.load("key") is None
    assert f"version {VERSION + 1}" in caplog.text
    assert not warnings_in(caplog)


def test_fields_of_a_later_release_are_passed_over(store, folder) -> None:
    folder.mkdir(parents=True)
    (folder / "key.json").write_bytes(b'{"version": 1, "new": 1, "footprint": {"weights": 7, "newer": [2]}}')
    assert store.load("key") == Footprint(weights=7)


def test_a_full_disk_is_warned_of_once_and_leaves_what_was_there(store, folder, caplog) -> None:
    store.save("key", FOOTPRINT)
    with full_disk():
        store.save("key", Footprint(weights=1))
        store.save("key", Footprint(weights=2))
    assert store.load("key") == FOOTPRINT
    assert [path.name for path in folder.iterdir()] == ["key.json"]
    (warning,) = warnings_in(caplog)
    assert "make room" in warning
    store.save("key", Footprint(weights=3))
    assert store.load("key") == Footprint(weights=3)
    with full_disk():
        store.save("key", FOOTPRINT)
    assert len(warnings_in(caplog)) == 2


@pytest.mark.parametrize("where", ["/proc/footprints", "/dev/null/footprints"])
def test_a_folder_that_cannot_be_made_is_a_warning(caplog, where) -> None:
    FootprintStore(Path(where)).save("key", FOOTPRINT)
    assert len(warnings_in(caplog)) == 1
    FootprintStore(Path("/proc/footprints")).load("key")
    assert len(warnings_in(caplog)) == 1


def test_what_killed_processes_left_is_cleared_away_once_it_is_old(store, folder) -> None:
    folder.mkdir(parents=True)
    left, in_use = folder / ".key-0123", folder / ".key-4567"
    for path in (left, in_use):
        path.write_bytes(b"{")
    os.utime(left, (0, 0))
    store.save("key", FOOTPRINT)
    assert sorted(path.name for path in folder.iterdir()) == [".key-4567", "key.json"]


def _save_many(folder: Path, mark: int) -> None:
    footprint = Footprint(weights=mark, batches={"b": {size: Measured(mark, 1.0, 1.0) for size in range(1, 500)}})
    for _ in range(100):
        FootprintStore(folder).save("key", footprint)


def test_of_processes_that_save_at_once_one_stands_and_nobody_reads_a_half(store, folder, caplog) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_save_many, args=(folder, mark)) for mark in (1, 2)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        found = store.load("key")
        if found is not None:
            seen.add((found.weights, *{one.nbytes for one in found.batches["b"].values()}))
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen <= {(1, 1), (2, 2)}
    assert store.load("key") is not None
    assert not warnings_in(caplog)
    assert [path.name for path in folder.iterdir()] == ["key.json"]


# --- keys ---


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "package").mkdir(parents=True)
    (folder / "network.py").write_text("class Infer: ...\n")
    (folder / "package" / "__init__.py").write_text("class Other: ...\n")
    (folder / "package" / "inner.py").write_text("class Inner: ...\n")
    (folder / "weights.bin").write_bytes(bytes(8 * MIB))
    (folder / "weights").mkdir()
    (folder / "weights" / "shard-1.bin").write_bytes(b"1")
    return folder


def key(project: Path, **changed: object) -> str:
    whole: dict[str, object] = {
        "model": "cats",
        "target": "network:Infer",
        "weights": "weights.bin",
        "parameters": {"depth": 3, "kind": "lite"},
        "device": "GPU-1 81559 MiB",
    }
    return key_of(project=project, **{**whole, **changed})


def test_a_key_is_the_same_for_the_same_and_for_a_copy_made_later(project, tmp_path) -> None:
    assert key(project) == key(project)
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    os.utime(copy / "weights.bin", (0, 0))
    assert key(copy) == key(project)
    assert key(copy, weights="weights") == key(project, weights="weights")
    assert key(project, parameters={"kind": "lite", "depth": 3}) == key(project)


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "dogs"},
        {"target": "network:Other"},
        {"weights": None},
        {"weights": "weights"},
        {"weights": "s3://bucket/weights.bin"},
        {"weights": "missing.bin"},
        {"parameters": {}},
        {"parameters": {"depth": 4, "kind": "lite"}},
        {"device": "GPU-2 81559 MiB"},
    ],
)
def test_whatever_a_model_is_made_of_makes_another_key(project, changed) -> None:
    assert key(project, **changed) != key(project)


@pytest.mark.parametrize("where", [0, 4 * MIB, 8 * MIB - 1])
def test_weights_that_differ_at_their_ends_or_in_the_middle_make_another_key(project, where) -> None:
    before = key(project)
    with (project / "weights.bin").open("r+b") as file:
        file.seek(where)
        file.write(b"x")
    assert key(project) != before


def test_longer_weights_make_another_key(project) -> None:
    before = key(project)
    with (project / "weights.bin").open("ab") as file:
        file.write(b"\0")
    assert key(project) != before


def test_a_file_more_or_longer_in_a_folder_of_weights_makes_another_key(project) -> None:
    before = key(project, weights="weights")
    (project / "weights" / "shard-2.bin").write_bytes(b"")
    more = key(project, weights="weights")
    (project / "weights" / "shard-2.bin").write_bytes(b"2")
    assert len({before, more, key(project, weights="weights")}) == 3


@pytest.mark.parametrize("uri", ["file:weights.bin", "file:{project}/weights.bin", "{project}/weights.bin"])
def test_weights_by_another_path_are_looked_into_as_well(project, uri) -> None:
    assert key(project, weights=uri.format(project=project)) == key(project)


@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("network:Infer", "network.py"),
        ("network.py:Infer", "network.py"),
        ("./network.py:Infer", "network.py"),
        ("package:Other", "package/__init__.py"),
        ("package.inner:Inner", "package/inner.py"),
        ("package/inner.py:Inner", "package/inner.py"),
    ],
)
def test_another_source_makes_another_key_and_is_not_run(project, target, file) -> None:
    before = key(project, target=target)
    (project / file).write_text("raise SystemExit('imported')\n")
    assert key(project, target=target) != before


@pytest.mark.parametrize("weights", ["/dev/zero", "pipe", "nul\0", "file://[", "~nobody-of-this-name/w.bin"])
def test_weights_that_are_no_file_hold_nobody_up(project, weights) -> None:
    os.mkfifo(project / "pipe")
    assert len(key(project, weights=weights)) == 64


@pytest.mark.parametrize("target", ["installed.elsewhere:Model", "", ":", "..:x", "no/such.py:Model", "nul\0:x"])
def test_code_that_is_not_in_the_project_counts_by_its_name(project, target) -> None:
    assert key(project, target=target) == key(project, target=target)
    assert key(project, target=target) != key(project)


def test_a_link_that_leads_nowhere_is_passed_over(project) -> None:
    before = key(project, weights="weights")
    (project / "weights" / "broken").symlink_to("nowhere")
    assert key(project, weights="weights") == before


def test_a_device_counts_by_its_name_and_its_capacity(tmp_path) -> None:
    with contextlib.closing(open_device(f"fake:8GiB?path={tmp_path}/card")) as card:
        assert device_key(card) == "fake-card 8192 MiB"
