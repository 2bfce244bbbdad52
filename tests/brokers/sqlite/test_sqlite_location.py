"""Where the file may lie, and where the wake-up sockets go."""

from __future__ import annotations

from pathlib import Path

import pytest

from dumbwaiter.brokers.sqlite import SqliteBroker
from dumbwaiter.brokers.sqlite.location import (
    MAX_SOCKET_PATH_NBYTES,
    path_of,
    refuse_network_file_system,
    socket_folder,
)
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import Message

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/export /mnt/shared nfs4 rw,vers=4.2 0 0
//server/share /mnt/shared/windows\\040files cifs rw 0 0
tmpfs /mnt/shared/fast tmpfs rw 0 0
overlay /data overlay rw 0 0
server:/late /data nfs rw 0 0
short
"""


def test_a_network_file_system_is_refused_with_its_kind_and_a_way_out():
    with pytest.raises(BrokerUnavailableError, match=r"/mnt/shared/queue\.db .*\(nfs4\).*local disk"):
        refuse_network_file_system(Path("/mnt/shared/queue.db"), MOUNTS)
    refuse_network_file_system(Path("/mnt/shared/fast/queue.db"), MOUNTS)


def test_urls_may_hold_escaped_characters():
    assert path_of("sqlite:///a%20b/c.db") == Path("/a b/c.db")
    assert path_of("sqlite:a/b.db") == Path("a/b.db")


@pytest.mark.anyio
async def test_a_path_too_long_for_a_socket_wakes_all_the_same(tmp_path):
    deep = tmp_path / ("x" * 100) / "queue.db"
    deep.parent.mkdir()
    folder = socket_folder(deep)
    assert tmp_path not in folder.parents
    assert len(str(folder)) < MAX_SOCKET_PATH_NBYTES
    async with SqliteBroker(f"sqlite://{deep}") as broker:
        await broker.create_queue("q")
        await broker.send("q", [Message()])
        assert len(await broker.receive("q", max_messages=1, max_wait=5)) == 1
