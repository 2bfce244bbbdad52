"""Which file systems several machines may share: there a lock of the kernel's says nothing about the others."""

from __future__ import annotations

from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.juicefs"),
        *("fuse.blobfuse", "fuse.mount-s3", "ncpfs", "ocfs2", "gfs2", "pvfs2", "orangefs", "davfs", "fuse.davfs2"),
    }
)
"""File systems on which another machine may hold the same file."""


def file_system_of(folder: str, mounts: str) -> str:
    """The type of the file system that holds *folder*, an absolute real path, by the text of /proc/self/mounts."""
    best, kind = -1, "unknown"
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount_point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = folder == mount_point or folder.startswith(mount_point.rstrip("/") + "/")
        # Of two mounts on one point the later one covers the earlier.
        if inside and len(mount_point) >= best:
            best, kind = len(mount_point), fields[2]
    return kind


def require_local(folder: Path) -> None:
    """Raises OSError when *folder* lies on a file system that other machines may share: of their processes nothing is
    known here.
    """
    kind = file_system_of(str(folder.resolve()), _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    if kind in NETWORK_FILE_SYSTEMS:
        raise OSError(f"{folder} lies on a network file system ({kind})")
