"""What a consumer holds can be read from its file at any moment at which it may die."""

from __future__ import annotations

import contextlib
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.takeover.journal import VERSION, Change, Entry, Journal, JournalUnreadableError, Page, _frame, read

BOOT = "this boot"
FILE = "this file"
EVER = 1e9


class File:
    """The bytes of a file, and a journal that writes them."""

    def __init__(self) -> None:
        self.content = b""
        self.journal = Journal(BOOT, FILE)
        self.writes: list[tuple[int, bytes]] = []

    def hold(self, *keys: str, until: float = EVER) -> None:
        for key in keys:
            self.journal.hold(key, Claim("queue", f"token of {key}", 0.0), until=until)

    def write(self, now: float = 0.0, *, cut: int | None = None) -> None:
        start, frame = self.journal.next_write(now)
        self.writes.append((start, frame))
        self.content = after_write(self.content, start, frame[:cut])

    @property
    def held(self) -> dict[str, float]:
        return held_in(self.content)


def after_write(content: bytes, start: int, piece: bytes) -> bytes:
    return content[:start] + piece + content[start + len(piece) :]


def held_in(content: bytes) -> dict[str, float]:
    return {entry.token.removeprefix("token of "): entry.until for entry in read(content, boot=BOOT, file=FILE)}


def test_what_is_held_is_read_and_what_is_dropped_is_not():
    file = File()
    file.hold("a", "b", "c")
    file.write()
    file.journal.drop(["b", "never held"])
    file.hold("d")
    file.write()
    assert file.held == {"a": EVER, "c": EVER, "d": EVER}
    (entry, *_) = read(file.content, boot=BOOT, file=FILE)
    assert (entry.queue, entry.token) == ("queue", "token of a")


def test_a_renewed_claim_takes_the_place_of_the_old_one():
    file = File()
    file.hold("a", "b", "c", until=10.0)
    file.write()
    file.hold("b", until=20.0)
    file.write()
    assert file.held == {"a": 10.0, "b": 20.0, "c": 10.0}
    assert file.writes[1][0] > 0, "a change, not all of it anew"


def test_what_was_settled_needs_no_write_of_its_own():
    file = File()
    file.hold("a", "b", "c")
    file.write()
    assert file.journal.drop(["a"])
    assert not file.journal.drop(["a"])
    file.hold("d")
    file.write()
    assert file.held.keys() == {"b", "c", "d"}


def test_one_message_at_a_time_always_lies_at_the_start():
    file = File()
    for number in range(100):
        file.hold(f"{number}")
        file.write()
        assert file.held.keys() == {f"{number}"}
        file.journal.drop([f"{number}"])
    assert len(file.content) < 200


def test_the_file_stays_small_however_long_something_is_held():
    file = File()
    file.hold(*map(str, range(50)))
    for number in range(5000):
        file.hold(f"one of many {number}")
        file.write()
        file.journal.drop([f"one of many {number}"])
    assert len(file.held) == 51
    assert len(file.content) < 100_000


def test_what_nobody_renews_is_forgotten_so_that_the_journal_does_not_grow():
    file = File()
    for number in range(5000):
        file.hold(f"{number}", until=number + 10.0)
        file.write(now=float(number))
    assert len(file.held) < 2500


def test_a_journal_of_another_boot_is_none():
    file = File()
    file.hold("a")
    file.write()
    with pytest.raises(JournalUnreadableError, match="before this machine was started, or by another machine"):
        read(file.content, boot="another boot", file=FILE)


def test_a_journal_that_was_copied_to_another_file_is_none():
    file = File()
    file.hold("a")
    file.write()
    with pytest.raises(JournalUnreadableError, match="a copy of another file, whose holder may be alive"):
        read(file.content, boot=BOOT, file="another file")


def test_a_journal_of_another_version_is_none_whatever_its_form():
    payload = msgspec.msgpack.encode([VERSION + 1, {"held": "in another way"}])
    content = len(payload).to_bytes(4, "little") + zlib.crc32(payload).to_bytes(4, "little") + payload
    with pytest.raises(JournalUnreadableError, match=rf"version {VERSION + 1}.*writes version {VERSION}"):
        read(content, boot=BOOT, file=FILE)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        *map(
            msgspec.msgpack.encode, ([], [VERSION], "text", [VERSION, BOOT, FILE, 1, [[1, "queue", "token", "soon"]]])
        ),
    ],
)
def test_a_page_that_is_none_is_refused_although_its_checksum_is_right(payload):
    content = len(payload).to_bytes(4, "little") + zlib.crc32(payload).to_bytes(4, "little") + payload
    with pytest.raises(JournalUnreadableError, match="damaged"):
        read(content, boot=BOOT, file=FILE)


def test_a_time_that_is_none_is_passed_over():
    held = [Entry(number, "queue", "a", until) for number, until in enumerate((float("nan"), 1.0))]
    assert held_in(_frame(Page(VERSION, BOOT, FILE, 1, held))) == {"a": 1.0}


def test_changes_of_an_older_page_are_not_read():
    page, stale = _frame(Page(VERSION, BOOT, FILE, 2, [])), _frame(Change(1, [Entry(1, "queue", "old", EVER)], []))
    assert held_in(page + stale) == {}


@given(st.binary(max_size=200))
def test_any_bytes_at_all_are_a_journal_or_refused(content):
    with contextlib.suppress(JournalUnreadableError):
        read(content, boot=BOOT, file=FILE)


STEPS = st.lists(st.tuples(st.sampled_from(["hold", "drop", "write"]), st.integers(0, 8)), max_size=60)


@given(STEPS)
def test_each_write_says_all_that_is_held_then(steps):
    file, held = File(), {}
    for step, number in steps:
        if step == "hold":
            file.hold(f"{number}", until=EVER + len(held))
            held[f"{number}"] = EVER + len(held)
        elif step == "drop":
            file.journal.drop([f"{number}"])
            held.pop(f"{number}", None)
        else:
            file.write()
            assert file.held == held


@given(STEPS, st.integers(0, 400))
def test_a_write_that_is_cut_off_leaves_what_was_there_before_or_nothing_readable(steps, cut):
    file = File()
    file.hold("first")
    file.write()
    for step, number in steps:
        if step == "hold":
            file.hold(f"{number}")
        elif step == "drop":
            file.journal.drop([f"{number}"])
        else:
            before = file.content
            file.write()
            start, frame = file.writes[-1]
            if cut < len(frame):
                torn = after_write(before, start, frame[:cut])
                try:
                    assert held_in(torn) in (held_in(before), file.held)
                except JournalUnreadableError:
                    assert start == 0, "a change that is cut off spoils nothing"
