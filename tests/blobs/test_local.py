"""The local folder: durable, whole or not at all, whoever dies and however full it is."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import stat
from pathlib import Path

import pytest
from blob_process import NBYTES

from dumbwaiter.blobs import BlobStore, open_store
from dumbwaiter.blobs.files import Root
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def synced(monkeypatch):
    """The paths that were synced, in order."""
    paths = []
    fsync = os.fsync

    def watched(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        paths.append(path if stat.S_ISDIR(os.fstat(descriptor).st_mode) else path.with_name("FILE"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    return paths


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]


@pytest.mark.parametrize("verb", ["put", "create"])
async def test_an_object_is_synced_before_its_folder(local: BlobStore, tmp_path, synced, verb):
    folder = tmp_path / "blobs" / "results"
    await getattr(local, verb)("results/a", b"1")
    assert synced == [tmp_path, tmp_path / "blobs", folder / "FILE", folder], "new folders are synced into theirs"
    synced.clear()
    await getattr(local, verb)("results/b", b"1")
    assert synced == [folder / "FILE", folder]


@pytest.mark.parametrize(("durable", "files"), [(True, ["FILE", ""]), (False, [])])
async def test_a_stream_is_synced_once_it_is_whole_and_where_it_must_be(local, tmp_path, synced, durable, files):
    async def chunks():
        for _ in range(3):
            yield b"x" * NBYTES

    folder = tmp_path / "blobs"
    await local.put("a", b"1")
    synced.clear()
    await local.put_stream("a", chunks(), durable=durable)
    assert synced == [folder / name for name in files]


async def test_the_loser_of_a_create_has_synced_the_winners_name(local: BlobStore, tmp_path, synced):
    await local.create("a", b"1")
    synced.clear()
    with pytest.raises(BlobExistsError, match="'a'"):
        await local.create("a", b"2")
    assert synced == [tmp_path / "blobs" / "FILE", tmp_path / "blobs"]


async def test_a_folder_made_for_a_passing_object_is_durable_for_the_next_one(local: BlobStore, tmp_path, synced):
    await local.put("claims/a", b"1", durable=False)
    assert synced == [tmp_path, tmp_path / "blobs"], "the folders, but not the object"


async def test_one_of_32_creates_in_four_processes_wins_and_all_see_its_object(local: BlobStore, url, child):
    writers = [child("create", url, f"writer{number}") for number in range(4)]
    for writer in writers:
        assert await asyncio.to_thread(writer.stdout.readline) == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    lines = []
    for writer in writers:
        lines += [line.split() for line in await asyncio.to_thread(writer.stdout.readlines)]
    winners = [line[1] for line in lines if line[0] == "won"]
    assert len(winners) == 1
    assert len(lines) == 32
    assert {line[2] for line in lines if line[0] == "lost"} == {winners[0]}
    assert await local.get("results/contended") == winners[0].encode() * 1000


async def test_kill_9_in_the_middle_of_writing_leaves_no_half_object(local: BlobStore, url, child):
    for life in range(4):
        writer = child("rewrite", url)
        said = [await asyncio.to_thread(writer.stdout.readline) for _ in range(3 + 2 * life)]
        writer.kill()
        said += [line for line in await asyncio.to_thread(writer.stdout.readlines) if line.endswith("\n")]
        keys = await local.list("")
        for key in keys:
            data = await local.get(key)
            assert data == data[:1] * NBYTES, f"{key} is torn"
        confirmed = {f"results/{line.split()[1]}" for line in said}
        assert confirmed
        assert confirmed <= set(keys), "what was confirmed is there"
        for key in keys:
            await local.delete(key)


async def test_a_full_disk_is_named_changes_nothing_and_leaves_nothing_behind(local: BlobStore, url, child, tmp_path):
    writer = child("overflow", url)
    out, _ = await asyncio.to_thread(writer.communicate)
    assert writer.returncode == 0
    said = out.splitlines()
    assert len(said) == 4
    for line, key in zip(said, ["new", "old"] * 2, strict=True):
        assert line == f"cannot write blob {key!r} in {tmp_path}/blobs: File too large"
    assert await local.list("") == ["old", "small"]
    assert await local.get("old") == b"old"
    assert unfinished(tmp_path) == []


async def test_what_a_killed_writer_left_unfinished_is_no_object(local: BlobStore, tmp_path):
    await local.put("claims/a", b"1")
    (tmp_path / "blobs" / "claims" / ".tmp-0123").write_bytes(b"half")
    assert await local.list("") == ["claims/a"]
    with pytest.raises(BlobError, match=r"starts with \.tmp-"):
        await local.get("claims/.tmp-0123")


async def test_what_no_key_names_is_no_object_nor_is_what_is_no_file(local: BlobStore, tmp_path):
    await local.put("claims/a", b"1")
    claims = tmp_path / "blobs" / "claims"
    for name in ("b c", "x#1", "\N{LATIN SMALL LETTER E WITH ACUTE}", "two\nlines"):
        (claims / name).touch()
        (claims / f"{name}-folder").mkdir()
        (claims / f"{name}-folder" / "d").touch()
    (claims / "loop").symlink_to("loop")
    (claims / "nowhere").symlink_to("nobody-is-there")
    os.mkfifo(claims / "pipe")
    (claims / "link").symlink_to("a")
    assert await local.list("claims/") == ["claims/a", "claims/link"]
    assert {entry.key async for page in local.scan("") for entry in page} == {"claims/a", "claims/link"}


async def test_a_cancelled_write_leaves_the_object_whole_or_absent(local: BlobStore, tmp_path):
    for number in range(20):
        write = asyncio.create_task(local.create(f"a{number}", b"x" * NBYTES))
        await asyncio.sleep(0)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
    await eventually(lambda: not unfinished(tmp_path), what="the end of the writing threads")
    for key in await local.list(""):
        assert len(await local.get(key)) == NBYTES


async def test_an_object_in_the_way_of_a_folder_is_named(local: BlobStore):
    await local.put("a", b"1")
    for verb in (local.put, local.create):
        with pytest.raises(BlobError, match=r"cannot write blob 'a/b/c' in .+: (File exists|Not a directory)"):
            await verb("a/b/c", b"2")
    await local.put("d/e", b"1")
    with pytest.raises(BlobError, match=r"cannot write blob 'd' in .+: Is a directory"):
        await local.put("d", b"2")


async def test_what_the_system_says_against_a_folder_is_told_by_every_verb(local: BlobStore, tmp_path):
    (tmp_path / "blobs").symlink_to("blobs")  # a loop; a permission would not stop root
    with pytest.raises(BlobError, match=r"cannot read blob 'a' in .+/blobs: Too many levels") as caught:
        await local.get("a")
    assert not isinstance(caught.value, BlobNotFoundError)
    with pytest.raises(BlobError, match=r"cannot delete blob 'a' in .+/blobs: Too many levels"):
        await local.delete("a")
    with pytest.raises(BlobError, match=r"cannot write blob 'a' in .+/blobs: "):
        await local.put("a", b"")
    with pytest.raises(BlobError, match=r"cannot list blobs in .+/blobs: Too many levels"):
        await local.list("")


# --- the folder itself ---


async def is_refused(store: BlobStore, match: str) -> None:
    """Every verb says so, and none takes it for absence."""

    async def chunks():
        yield b"1"

    async def scanned():
        return [page async for page in store.scan("results/")]

    verbs = [
        store.get("results/a"),
        store.get("results/never"),
        store.exists("results/never"),
        store.size("results/a"),
        anext(store.stream("results/a")),
        store.put("results/b", b"1"),
        store.put_stream("results/b", chunks()),
        store.create("results/a", b"1"),
        store.delete("results/a"),
        store.list("results/"),
        scanned(),
    ]
    for verb in verbs:
        with pytest.raises(BlobError, match=match) as caught:
            await verb
        assert not isinstance(caught.value, BlobNotFoundError), verb


@pytest.mark.parametrize("comes_instead", ["nothing", "a folder", "a file"])
async def test_a_folder_that_was_taken_away_is_not_an_empty_store(local: BlobStore, tmp_path, comes_instead):
    folder, away = tmp_path / "blobs", tmp_path / "away"
    await local.put("results/a", b"1")
    assert await local.exists("results/a")
    folder.rename(away)
    if comes_instead == "a folder":
        (folder / "results").mkdir(parents=True)
    elif comes_instead == "a file":
        folder.write_text("")
    await is_refused(local, "taken away or replaced under us; put it back, or restart|Not a directory")
    with pytest.raises(BlobError, match="taken away or replaced"):
        await local.remove_leftovers(before=2e9)
    if folder.is_dir():
        (folder / "results").rmdir()
        folder.rmdir()
    folder.unlink(missing_ok=True)
    away.rename(folder)
    assert await local.get("results/a") == b"1", "it is there again"


async def test_a_folder_that_was_deleted_and_made_anew_is_another_one(local: BlobStore, tmp_path):
    await local.put("results/a", b"1")
    await local.list("")
    for _ in range(5):  # file systems give the number of a folder that is gone to the next one
        shutil.rmtree(tmp_path / "blobs")
        (tmp_path / "blobs").mkdir()
        await is_refused(local, "taken away or replaced under us")


async def test_a_folder_that_goes_while_it_is_looked_into_is_not_empty(local: BlobStore, tmp_path, monkeypatch):
    await local.put("results/a", b"1")
    check = Root.check

    def goes(root):
        check(root)
        if (tmp_path / "blobs").exists():
            (tmp_path / "blobs").rename(tmp_path / "away")

    monkeypatch.setattr(Root, "check", goes)
    for look in (local.get("results/a"), local.exists("results/a"), local.list("results/")):
        if not (tmp_path / "blobs").exists():
            (tmp_path / "away").rename(tmp_path / "blobs")
        with pytest.raises(BlobError, match="taken away") as caught:
            await look
        assert not isinstance(caught.value, BlobNotFoundError)


async def test_a_file_in_the_place_of_a_kind_of_objects_is_not_their_absence(local: BlobStore, tmp_path):
    await local.put("claims/a", b"1")
    (tmp_path / "blobs" / "results").write_text("")
    await is_refused(local, "cannot (read|write|delete|list) blobs? .*: (results is no folder|File exists|Not a dir)")
    assert await local.get("claims/a") == b"1"


async def test_what_was_never_there_is_absent_and_comes_with_the_first_object(local: BlobStore, tmp_path):
    assert not await local.exists("results/a")
    assert await local.list("") == []
    await local.delete("results/a")
    assert not (tmp_path / "blobs").exists()
    await local.put("results/a", b"1")
    assert await local.list("") == ["results/a"]


async def test_a_store_that_is_not_used_any_more_lets_its_folder_go(url, tmp_path):
    store = open_store(url)
    await store.put("a", b"1")
    await store.list("")
    assert tmp_path / "blobs" in open_paths()
    del store
    gc.collect()
    assert tmp_path / "blobs" not in open_paths()


def open_paths() -> list[Path]:
    return [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


async def test_a_look_at_a_file_or_at_a_folder_of_another_user_says_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BlobError, match=r"cannot use the blob store in .*/file: Not a directory; name another"):
        await open_store(f"file://{tmp_path}/file").check()
    if os.geteuid() == 0:
        return  # to whom all folders are open
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(BlobError, match="Permission denied; name another folder, or give this user access to it"):
        await open_store(f"file://{tmp_path}/closed").check()
