"""Which file systems several machines may share."""

from __future__ import annotations

import pytest

from dumbwaiter.file_systems import file_system_of

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
