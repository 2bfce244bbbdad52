"""Whose a folder is."""

from __future__ import annotations

import os

import pytest

from dumbwaiter.folders import require_own, sync_folder


def test_a_folder_of_this_user_alone_is_taken_and_can_be_synced(tmp_path):
    tmp_path.chmod(0o755)
    require_own(tmp_path, tmp_path.stat())
    sync_folder(tmp_path)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_what_others_may_write_to_is_refused(tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match=r"others may write to .*chmod go-w"):
        require_own(tmp_path, tmp_path.stat())


def test_what_belongs_to_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(PermissionError, match=r"not to this one \(4321\)"):
        require_own(tmp_path, tmp_path.stat())
