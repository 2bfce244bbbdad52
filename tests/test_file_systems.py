"""Which file systems several machines may share."""

from __future__ import annotations

import pytest

from dumbwaiter import file_systems
from dumbwaiter.file_systems import file_system_of, require_local

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/export /mnt/shared nfs4 rw,vers=4.2 0 0
//server/share /mnt/shared/windows\\040files cifs rw 0 0
tmpfs /mnt/shared/fast tmpfs rw 0 0
overlay /data overlay rw 0 0
server:/late /data nfs rw 0 0
short
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me", "ext4"),
        ("/mnt/shared", "nfs4"),
        ("/mnt/shared/deep/er", "nfs4"),
        ("/mnt/shared/windows files/x", "cifs"),
        ("/mnt/shared/fast", "tmpfs"),
        ("/mnt/shared-not", "ext4"),
        ("/data/queue", "nfs"),
    ],
)
def test_the_innermost_and_latest_mount_decides(folder, kind):
    assert file_system_of(folder, MOUNTS) == kind


def test_a_folder_that_other_machines_may_share_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(MOUNTS + f"server:/export {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(file_systems, "_MOUNTS", tmp_path / "mounts")
    with pytest.raises(OSError, match=r"network file system \(nfs4\)"):
        require_local(tmp_path)


def test_a_folder_of_this_machine_is_taken(tmp_path):
    require_local(tmp_path)
