"""A folder of rendered files: ours are renewed and removed, all others are left alone."""

from __future__ import annotations

import pytest

from dumbwaiter.deploy.kubernetes.writing import write
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
