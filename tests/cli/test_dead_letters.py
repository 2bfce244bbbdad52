"""`dumbwaiter dead-letters list | show | redrive | purge`."""

from __future__ import annotations

import json
import re

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from processes import Terminal, run_on_terminal

pytestmark = pytest.mark.anyio

TRACEBACK = (
    "ValueError: this text is wrong\nTraceback (most recent call last):\n  File ...\nValueError: this text is wrong"
)
BODY = b"\xff\xd8 not text"


@pytest.fixture
async def keys(project):
    """The keys of two dead letters of `shout`: a text, and a body that is no text."""
    (project / ".dumbwaiter").mkdir()
    async with broker_of(project) as broker:
        await broker.create_queue("shout")
        await broker.create_queue("other")
        await broker.send("shout", [Message(id="first", body=b"wrong", content_type="text/plain")])
        await broker.send("shout", [Message(id="second", body=BODY, content_type="image/jpeg", tenant="acme")])
        first, second = await broker.receive("shout", max_messages=2, max_wait=5.0)
        await broker.dead_letter([first], reason="ValueError", detail=TRACEBACK)
        await broker.dead_letter([second], reason="bad-input", detail="")
        return [letter.key for letter in await broker.dead_letters("shout", limit=10)]


def broker_of(project):
    return open_broker(f"sqlite:{project}/.dumbwaiter/queue.db")


async def counts(project):
    async with broker_of(project) as broker:
        stats = await broker.stats("shout")
        return stats.ready, stats.dead


async def test_list_shows_each_with_its_reason_and_the_first_line_of_its_detail(run, keys):
    shown = run("dead-letters", "list")
    assert shown.returncode == 0
    header, first, second = shown.stdout.splitlines()
    assert header.split() == ["queue", "key", "died", "tries", "reason", "detail"]
    assert first.split()[:2] == ["shout", keys[0]]
    assert first.endswith("      1  ValueError  ValueError: this text is wrong")
    assert second.endswith("      1  bad-input")


LONG = "x" * 500


@pytest.mark.parametrize(
    ("detail", "piped", "on_terminal"),
    [
        (f"the runner died\nFatal Python error\n{LONG}", "the runner died", "the runner died"),
        ("dumbwaiter.errors.TransientError: later\nTraceback", "later", "later"),
        (LONG, LONG, f"{'x' * 119}…"),
    ],
)
async def test_list_says_what_happened_and_cuts_it_only_on_a_terminal_and_says_so(
    project, run, keys, detail, piped, on_terminal
):
    async with broker_of(project) as broker:
        await broker.create_queue("cut")
        await broker.send("cut", [Message(body=b"x")])
        await broker.dead_letter(await broker.receive("cut", max_messages=1, max_wait=5.0), reason="y", detail=detail)
    assert run("dead-letters", "list", "cut").stdout.endswith(f"      1  y       {piped}\n")
    code, shown = run_on_terminal(project, "dead-letters", "list", "cut", COLUMNS="300")
    assert (code, shown.rstrip().endswith(f"      1  y       {on_terminal}")) == (0, True), shown


async def test_list_for_programs_has_all_there_is(run, keys):
    first, second = json.loads(run("dead-letters", "list", "shout", "--json").stdout)
    assert (first["queue"], first["key"], first["message_id"]) == ("shout", keys[0], "first")
    assert (first["reason"], first["detail"], first["delivery_count"]) == ("ValueError", TRACEBACK, 1)
    assert (second["nbytes"], second["attributes"]["tenant"]) == (len(BODY), "acme")


async def test_list_is_limited_to_the_oldest_and_to_the_named_queues_and_says_where_it_looked(run, project, keys):
    (first,) = json.loads(run("dead-letters", "list", "--limit", "1", "--json").stdout)
    assert first["message_id"] == "first"
    assert run("dead-letters", "list", "other").stdout == (
        f"no dead letters on sqlite:{project}/.dumbwaiter/queue.db\n"
    )
    assert json.loads(run("dead-letters", "list", "other", "--json").stdout) == []


async def test_show_tells_everything_in_full(run, keys):
    shown = run("dead-letters", "show", "shout", keys[0])
    assert shown.returncode == 0
    assert f"key:            {keys[0]}\n" in shown.stdout
    assert "reason:         ValueError\n" in shown.stdout
    assert "  File ...\n                ValueError: this text is wrong\n" in shown.stdout
    assert re.search(r"\nattributes:     specversion: 1.0\n( {16}\w+: .+\n)+detail: ", shown.stdout)
    assert "\n                datacontenttype: text/plain\n" in shown.stdout
    assert shown.stdout.endswith("body:           wrong\n")


async def test_show_takes_the_message_id_too_and_speaks_json(run, keys):
    letter = json.loads(run("dead-letters", "show", "shout", "second", "--json").stdout)
    assert (letter["key"], letter["body"]) == (keys[1], f"{len(BODY)} bytes, not text")


async def test_show_body_writes_the_body_and_nothing_else(run, keys):
    shown = run("dead-letters", "show", "shout", keys[1], "--body")
    assert (shown.returncode, shown.raw, shown.stderr) == (0, BODY, "")


async def test_redrive_sends_the_named_ones_back(run, project, keys):
    shown = run("dead-letters", "redrive", "shout", keys[0])
    assert (shown.returncode, shown.stdout) == (0, "redriven 1\n")
    assert await counts(project) == (1, 1)


async def test_redrive_all_sends_all_back_with_a_fresh_delivery_count(run, project, keys):
    assert json.loads(run("dead-letters", "redrive", "shout", "--all", "--json").stdout) == {"redriven": 2}
    async with broker_of(project) as broker:
        deliveries = await broker.receive("shout", max_messages=2, max_wait=5.0)
    assert [(one.message.id, one.delivery_count) for one in deliveries] == [("first", 1), ("second", 1)]


async def test_redrive_all_sends_back_hundreds(run, project, keys):
    async with broker_of(project) as broker:
        await broker.send("shout", [Message(body=b"wrong") for _ in range(250)])
        await broker.dead_letter(await broker.receive("shout", max_messages=250, max_wait=5.0), reason="ValueError")
    assert run("dead-letters", "redrive", "shout", "--all").stdout == "redriven 252\n"
    assert await counts(project) == (252, 0)


async def test_purge_with_yes_deletes_without_asking(run, project, keys):
    shown = run("dead-letters", "purge", "shout", keys[0], "--yes")
    assert (shown.returncode, shown.stdout) == (0, "purged 1\n")
    assert await counts(project) == (0, 1)
    assert json.loads(run("dead-letters", "purge", "shout", "--all", "--yes", "--json").stdout) == {"purged": 1}
    assert await counts(project) == (0, 0)


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 1, 2), ("", 1, 2)])
async def test_purge_asks_first(project, keys, answer, code, left):
    terminal = Terminal(project, "dead-letters", "purge", "shout", "--all")
    await eventually(lambda: "Delete all dead letters of shout for good? [y/N]: " in terminal.shown, within=20.0)
    terminal.type(f"{answer}\n")
    assert terminal.finish() == code
    assert ("nothing was deleted\n" in terminal.shown) == (left > 0)
    assert await counts(project) == (0, left)


async def test_ctrl_c_at_the_question_is_no_yes(project, keys):
    terminal = Terminal(project, "dead-letters", "purge", "shout", "--all")
    await eventually(lambda: "[y/N]: " in terminal.shown, within=20.0)

    def gone_by_ctrl_c():
        terminal.type("\x03")  # as a person would: Python's readline may miss one that comes just before it waits
        return terminal.process.poll() is not None

    await eventually(gone_by_ctrl_c, within=20.0, every=0.2)
    assert terminal.finish() == 130
    assert await counts(project) == (0, 2)


async def test_purge_does_nothing_when_nobody_is_there_to_be_asked(run, project, keys):
    shown = run("dead-letters", "purge", "shout", "--all")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "nobody is there to be asked; say --yes; see: dumbwaiter dead-letters purge --help\n" in shown.stderr
    assert await counts(project) == (0, 2)


@pytest.mark.parametrize("command", ["redrive", "purge"])
async def test_neither_keys_nor_all_or_both_is_refused(run, project, keys, command):
    for arguments in ((), (keys[0], "--all")):
        shown = run("dead-letters", command, "shout", *arguments)
        assert shown.returncode == 2
        assert f"name the KEYs, or say --all; see: dumbwaiter dead-letters {command} --help" in shown.stderr
    assert await counts(project) == (0, 2)


@pytest.mark.parametrize("command", [("show",), ("redrive", "first"), ("purge", "--yes", "first")])
async def test_an_unknown_key_is_named_and_nothing_is_done(run, project, keys, command):
    verb, *more = command
    shown = run("dead-letters", verb, "shout", *more, "nosuchkey")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == (
        "dumbwaiter: error: no dead letter nosuchkey in queue 'shout'; see: dumbwaiter dead-letters list shout\n"
    )
    assert await counts(project) == (0, 2)


@pytest.mark.parametrize("command", [("list", "shot"), ("show", "shot", "1"), ("purge", "shot", "--all", "--yes")])
async def test_an_unknown_queue_is_told_with_those_that_there_are(run, keys, command):
    shown = run("dead-letters", *command)
    assert shown.returncode == 1
    assert "no queue named 'shot'; there are: other, shout; did you mean 'shout'?" in shown.stderr
