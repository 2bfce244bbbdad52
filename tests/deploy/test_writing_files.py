"""A folder of rendered files: ours are renewed and removed, all others are left alone."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from dumbwaiter.deploy.writing import write
from dumbwaiter.errors import ConfigError

FILES = {"role.yaml": "kind: Role\n", "README.md": "# Hello\n", "templates/pod.yaml": "kind: Pod\n"}


def kinds(changes):
    return {change.file: change.kind for change in changes}


def test_what_is_new_changed_the_same_and_gone_is_told(tmp_path):
    assert set(kinds(write(tmp_path, FILES)).values()) == {"new"}
    assert set(kinds(write(tmp_path, FILES)).values()) == {"same"}
    changed = kinds(write(tmp_path, {"role.yaml": "kind: ClusterRole\n", "README.md": "# Hello\n"}))
    assert changed == {"role.yaml": "changed", "README.md": "same", "templates/pod.yaml": "gone"}
    assert "ClusterRole" in (tmp_path / "role.yaml").read_text()
    assert not (tmp_path / "templates/pod.yaml").exists()


def test_files_of_others_are_never_overwritten_and_nothing_is_written_then(tmp_path):
    (tmp_path / "role.yaml").write_text("mine: true\n")
    with pytest.raises(ConfigError, match=r"role\.yaml"):
        write(tmp_path, FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["role.yaml"]


def test_so_is_what_was_edited_by_hand(tmp_path):
    write(tmp_path, FILES)
    for name in FILES:
        path = tmp_path / name
        before = path.read_text()
        path.write_text(before + "\n# mine\n")
        with pytest.raises(ConfigError, match=name):
            write(tmp_path, FILES)
        path.write_text(before)


def test_an_edited_file_that_is_rendered_no_more_stays(tmp_path):
    write(tmp_path, FILES)
    path = tmp_path / "role.yaml"
    path.write_text(path.read_text() + "# mine\n")
    write(tmp_path, {"README.md": "# Hello\n"})
    assert path.exists()


def test_others_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "patch.yaml").write_text("mine: true\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    write(tmp_path, FILES)
    write(tmp_path, {})
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["patch.yaml", "picture.png"]


def test_a_check_writes_nothing(tmp_path):
    assert set(kinds(write(tmp_path / "new", FILES, check=True)).values()) == {"new"}
    assert not (tmp_path / "new").exists()


@contextmanager
def little_room(size):
    """No file of this process may grow beyond *size* bytes, as on a disk that is almost full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_signal = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, at_signal)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_room_for_all_nothing_is_changed_and_with_room_it_is_done(tmp_path):
    write(tmp_path, FILES)
    before = contents(tmp_path)
    fresh = {"role.yaml": "kind: ClusterRole\n", "large.yaml": "# " + "x" * 100_000, "README.md": "# Hello\n"}
    with little_room(50_000), pytest.raises(ConfigError, match=r"large\.yaml cannot be written"):
        write(tmp_path, fresh)
    assert contents(tmp_path) == before
    assert kinds(write(tmp_path, fresh))["large.yaml"] == "new"
    assert {*contents(tmp_path)} == {*fresh}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "large.yaml", "role.yaml", "templates"]


def test_whatever_is_at_a_place_that_is_wanted_is_somebody_elses(tmp_path):
    (tmp_path / "README.md").mkdir()
    (tmp_path / "templates").write_text("mine\n")
    (tmp_path / "role.yaml").symlink_to("nowhere")
    for check in (True, False):
        with pytest.raises(ConfigError, match=r"README\.md, role\.yaml, templates; move that away"):
            write(tmp_path, FILES, check=check)
    assert contents(tmp_path) == {"templates": b"mine\n"}


def test_a_link_is_somebody_elses_even_to_a_file_of_ours(tmp_path):
    write(tmp_path / "a", FILES)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "role.yaml").symlink_to(tmp_path / "a" / "role.yaml")
    (tmp_path / "b" / "templates").symlink_to(tmp_path / "a" / "templates")
    with pytest.raises(ConfigError, match=r"role\.yaml, templates;"):
        write(tmp_path / "b", {name: f"{text}# more\n" for name, text in FILES.items()})
    assert set(kinds(write(tmp_path / "a", FILES)).values()) == {"same"}


@pytest.mark.parametrize("folder", ["/proc/no-such-folder", "/dev/null/kitchen"])
def test_a_folder_in_which_nothing_can_be_written_is_named(folder):
    with pytest.raises(ConfigError, match=rf"{folder} cannot be written"):
        write(Path(folder), FILES)


def test_a_file_that_is_renewed_keeps_who_may_run_it_and_one_that_is_the_same_is_not_touched(tmp_path):
    write(tmp_path, {"prepare.sh": "true\n", "role.yaml": "kind: Role\n"})
    (tmp_path / "prepare.sh").chmod(0o755)
    os.utime(tmp_path / "role.yaml", (1, 1))
    write(tmp_path, {"prepare.sh": "false\n", "role.yaml": "kind: Role\n"})
    assert (tmp_path / "prepare.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "role.yaml").stat().st_mtime == 1


@contextmanager
def as_nobody(folder):
    """What is done within is done by a user who may not read everything, and to whom *folder* belongs."""
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_we_may_not_read_is_left_alone():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "secrets").mkdir()
        (folder / "secrets" / "broker.conf").write_text("mine\n")
        (folder / "secrets" / "broker.conf").chmod(0)
        with as_nobody(folder):
            assert set(kinds(write(folder, FILES)).values()) == {"new"}
            assert set(kinds(write(folder, FILES)).values()) == {"same"}


def test_what_we_may_not_read_where_a_file_is_wanted_is_named():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "role.yaml").write_text("mine\n")
        (folder / "role.yaml").chmod(0)
        with as_nobody(folder), pytest.raises(ConfigError, match=r"role\.yaml cannot be read: Permission denied"):
            write(folder, FILES)
