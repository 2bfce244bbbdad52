"""Producers and askers that know SQLite and docs/sqlite.md, but not this package."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dumbwaiter.errors import InboxGoneError
from dumbwaiter.message import Message

pytestmark = pytest.mark.anyio

DOCUMENT = Path(__file__).parents[3] / "docs" / "sqlite.md"


#: A program of its own: the kernel's file locks belong to the process, so two SQLite libraries in one damage the file.
PROGRAM = """
import ast, fcntl, sqlite3, sys
from contextlib import closing

file, statement, parameters = sys.argv[1:]
with open(f"{file}.lock", "a") as turnstile, closing(sqlite3.connect(file)) as connection:
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    fcntl.flock(turnstile, fcntl.LOCK_EX)
    with connection:
        print(connection.execute(statement, ast.literal_eval(parameters)).fetchall())
"""


def run_sql(file, statement, parameters=()):
    """As docs/sqlite.md tells a program with an old SQLite to do it."""
    command = [sys.executable, "-c", PROGRAM, str(file), statement, repr(parameters)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        kind, _, message = ran.stderr.strip().splitlines()[-1].partition(": ")
        raise getattr(sqlite3, kind.removeprefix("sqlite3."))(message)
    return ast.literal_eval(ran.stdout)


async def test_a_bare_body_is_served_with_defaults_and_a_stable_id(file, broker):
    receive = asyncio.create_task(broker.receive("q", max_messages=1, max_wait=20))
    await asyncio.sleep(0.05)
    run_sql(file, "INSERT INTO message (queue, body) VALUES ('q', 'plain text')")
    (delivery,) = await receive
    assert delivery.message.body == b"plain text"
    assert delivery.message.content_type is None
    await broker.abandon([delivery])
    (again,) = await broker.receive("q", max_messages=1, max_wait=5)
    assert again.message.id == delivery.message.id
    assert re.fullmatch("[0-9a-f]{32}", again.message.id)


async def test_headers_are_cloud_events_attributes(file, broker):
    run_sql(file, "INSERT INTO message (queue, body) VALUES ('q', 'low')")
    headers = {"id": "mine", "datacontenttype": "text/plain", "priority": 7, "tenant": "acme", "colour": "red"}
    for _ in range(2):  # The second has a known id and is dropped.
        run_sql(file, "INSERT INTO message (queue, headers, body) VALUES ('q', ?, ?)", (json.dumps(headers), b"\xff"))
    first, second = await broker.receive("q", max_messages=5, max_wait=5)
    message = first.message
    assert (message.id, message.content_type, message.priority, message.tenant) == ("mine", "text/plain", 7, "acme")
    assert (message.body, message.extensions) == (b"\xff", {"colour": "red"})
    assert second.message.body == b"low"


@pytest.mark.parametrize("headers", ["not JSON", "[1, 2]", '"text"'])
async def test_headers_that_are_no_object_are_refused_at_once(file, broker, headers):
    with pytest.raises(sqlite3.IntegrityError, match="headers must be"):
        run_sql(file, "INSERT INTO message (queue, headers, body) VALUES ('q', ?, 'x')", (headers,))


async def test_an_unknown_queue_is_refused_at_once(file, broker):
    with pytest.raises(sqlite3.IntegrityError, match="no queue of that name"):
        run_sql(file, "INSERT INTO message (queue, body) VALUES ('nowhere', 'x')")


async def test_attributes_that_cannot_be_read_become_a_dead_letter_and_the_rest_is_served(file, broker):
    bad = json.dumps({"id": "bad", "deadline": "tomorrow"})
    run_sql(file, "INSERT INTO message (queue, headers, body) VALUES ('q', ?, 'x')", (bad,))
    run_sql(file, "INSERT INTO message (queue, body) VALUES ('q', 'good')")
    (delivery,) = await broker.receive("q", max_messages=5, max_wait=5)
    assert delivery.message.body == b"good"
    (dead,) = await broker.dead_letters("q")
    assert (dead.reason, dead.message.id, dead.message.extensions) == ("bad-envelope", "bad", {"headers": bad})
    assert "deadline" in dead.detail


SURROGATE = r'{"id": "q\udc00", "subject": "\ud800"}'
POISON = {
    "half a surrogate pair": ("headers", "?", SURROGATE),
    "headers that are not UTF-8": ("headers", "CAST(? AS TEXT)", b'{"subject": "\xff\xfe"}'),
    "an id that is not UTF-8": ("id", "CAST(? AS TEXT)", b"\xff\xfe"),
    "an id of bytes": ("id", "?", b"\xff\xfe"),
    "a number without end": ("headers", "?", '{"priority": 1e400}'),
}


@pytest.mark.parametrize(("column", "value", "poison"), POISON.values(), ids=POISON)
async def test_what_is_no_text_becomes_a_dead_letter_that_can_be_read_and_moved_and_the_rest_is_served(
    file, broker, column, value, poison
):
    run_sql(file, f"INSERT INTO message (queue, {column}, body) VALUES ('q', {value}, 'bad')", (poison,))
    run_sql(file, "INSERT INTO message (queue, body) VALUES ('q', 'good')")
    (delivery,) = await broker.receive("q", max_messages=5, max_wait=5)
    assert delivery.message.body == b"good"
    for _ in range(2):
        (dead,) = await broker.dead_letters("q")
        assert (dead.reason, dead.message.body, (await broker.stats("q")).dead) == ("bad-envelope", b"bad", 1)
        assert re.search(
            "the id is not UTF-8 text|headers are not a JSON object of CloudEvents attributes", dead.detail
        )
        assert await broker.redrive("q", [dead.key]) == 1
        assert await broker.receive("q", max_messages=5, max_wait=0) == []
    assert await broker.purge("q") == 1
    assert await broker.dead_letters("q") == []


async def test_an_id_of_bytes_or_a_number_is_read_as_text_and_deduplicates_as_such(file, broker):
    for name in (b"seventeen", "seventeen", 17, "17"):
        run_sql(file, "INSERT INTO message (queue, id) VALUES ('q', ?)", (name,))
    deliveries = await broker.receive("q", max_messages=5, max_wait=5)
    assert [delivery.message.id for delivery in deliveries] == ["seventeen", "17"]


async def test_messages_with_an_empty_id_are_not_doubles_of_each_other(file, broker):
    for column, empty in [("id", ""), ("id", b""), ("headers", '{"id": ""}')]:
        run_sql(file, f"INSERT INTO message (queue, {column}) VALUES ('q', ?)", (empty,))
    deliveries = await broker.receive("q", max_messages=5, max_wait=5)
    assert len({delivery.message.id for delivery in deliveries} - {""}) == 3


async def test_a_row_that_is_older_than_the_rules_is_served_and_its_bytes_survive_a_redrive(file, broker):
    run_sql(file, "INSERT INTO header (queue, id) VALUES (1, x'6f6c64')")
    run_sql(file, "INSERT INTO payload VALUES (1, NULL, 'body as text')")
    for _ in range(2):
        (delivery,) = await broker.receive("q", max_messages=5, max_wait=5)
        assert (delivery.message.id, delivery.message.body) == ("old", b"body as text")
        await broker.dead_letter([delivery], reason="test", detail="half a pair: \ud800")
        (dead,) = await broker.dead_letters("q")
        assert (dead.message.id, dead.detail) == ("old", "half a pair: ?")
        assert await broker.redrive("q") == 1


async def test_a_queue_that_no_call_could_name_is_not_listed(file, broker):
    run_sql(file, "INSERT INTO queue (name) VALUES (CAST(x'ff' AS TEXT)), (x'6171'), ('no name'), ('')")
    assert await broker.queues() == ["q"]
    assert (await broker.stats("q")).ready == 0


async def test_replies_that_are_no_messages_do_not_hold_up_those_behind_them(file, broker):
    inbox = await broker.open_inbox()
    garbage = [(b"\xff", "x"), (SURROGATE.encode(), "x"), (b"17", "x"), (b"", b"\xff")]
    for headers, body in garbage:
        statement = "INSERT INTO reply (address, headers, body) VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT))"
        run_sql(file, statement, (inbox.address, headers, body))
    await broker.reply(inbox.address, [Message(body=b"good", correlation_id="question")])
    messages = await inbox.receive(max_messages=10, max_wait=5)
    assert [message.correlation_id for message in messages] == [None] * len(garbage) + ["question"]
    assert messages[0].extensions == {"headers": "\ufffd"}


@pytest.mark.parametrize("conflict", ["REPLACE", "ABORT", "FAIL", "ROLLBACK", "IGNORE"])
async def test_a_known_id_is_dropped_whatever_the_producer_wants_done_about_conflicts(file, broker, conflict):
    async def send_again():
        run_sql(file, f"INSERT OR {conflict} INTO message (queue, id, body) VALUES ('q', 'same', 'later')")
        return run_sql(file, "SELECT state, body FROM message")

    await broker.send("q", [Message(id="same", body=b"first")])
    assert await send_again() == [("ready", b"first")]
    deliveries = await broker.receive("q", max_messages=5, max_wait=5)
    assert await send_again() == [("locked", b"first")]
    await broker.dead_letter(deliveries, reason="test")
    assert await send_again() == [("dead", b"first")]
    await broker.redrive("q")
    await broker.complete(await broker.receive("q", max_messages=5, max_wait=5))
    assert await send_again() == []
    assert run_sql(file, "SELECT count(*) FROM payload") == run_sql(file, "SELECT count(*) FROM death") == [(0,)]


async def test_a_raw_asker_gets_its_answer_and_can_read_the_state_of_its_message(file, broker):
    run_sql(file, "INSERT INTO inbox (address) VALUES ('my-script')")
    headers = json.dumps({"id": "question", "replyto": "my-script"})
    run_sql(file, "INSERT INTO message (queue, headers, body) VALUES ('q', ?, '6 * 7')", (headers,))
    assert run_sql(file, "SELECT queue, state FROM message WHERE id = 'question'") == [("q", "ready")]
    (delivery,) = await broker.receive("q", max_messages=1, max_wait=5)
    assert run_sql(file, "SELECT state, delivery_count FROM message") == [("locked", 1)]
    await broker.reply(delivery.message.reply_to, [Message(body=b"42", correlation_id=delivery.message.id)])
    await broker.complete([delivery])
    ((answer, body),) = run_sql(file, "SELECT headers, body FROM reply WHERE address = 'my-script'")
    assert (json.loads(answer)["correlationid"], body) == ("question", b"42")


async def test_dead_letters_can_be_read(file, broker):
    await broker.send("q", [Message(id="hopeless")])
    await broker.dead_letter(await broker.receive("q", max_messages=1, max_wait=5), reason="model-error", detail="boom")
    assert run_sql(file, "SELECT queue, id, reason, detail FROM dead_letter") == [
        ("q", "hopeless", "model-error", "boom")
    ]


async def test_a_raw_inbox_is_forgotten_an_hour_after_it_was_made(file, url, broker):
    from dumbwaiter.brokers.sqlite.maintenance import Maintain

    run_sql(file, "INSERT INTO inbox (address) VALUES ('fresh'), ('stale')")
    await broker.reply("stale", [Message()])
    run_sql(file, "UPDATE inbox SET created_at = created_at - 3601 WHERE address = 'stale'")
    await broker._run(Maintain())
    await broker.reply("fresh", [Message()])
    with pytest.raises(InboxGoneError):
        await broker.reply("stale", [Message()])
    assert run_sql(file, "SELECT address FROM reply") == [("fresh",)]


def examples(language):
    """The code blocks of docs/sqlite.md in *language*."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the sqlite3 shell")
async def test_the_shell_examples_of_the_documentation_work(tmp_path, file, broker):
    await broker.create_queue("infer")
    folder = tmp_path / ".dumbwaiter"
    folder.mkdir()
    for name in (file, Path(f"{file}.lock")):
        (folder / name.name).symlink_to(name)
    for example in examples("sh"):
        ran = await asyncio.to_thread(
            subprocess.run, ["sh", "-e", "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, ""), example
    deliveries = await broker.receive("infer", max_messages=10, max_wait=0)
    assert len(deliveries) == 2


async def test_the_python_example_of_the_documentation_gets_its_answer(tmp_path, file, broker):
    await broker.create_queue("infer")
    (example,) = examples("python")
    script = tmp_path / "ask.py"
    script.write_text(example.replace(".dumbwaiter/queue.db", str(file)))
    asking = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=subprocess.PIPE)
    (delivery,) = await broker.receive("infer", max_messages=1, max_wait=20)
    answer = Message(body=b"tabby 0.81", correlation_id=delivery.message.id)
    await broker.reply(delivery.message.reply_to, [answer])
    await broker.complete([delivery])
    out, _ = await asking.communicate()
    assert (asking.returncode, out) == (0, b"tabby 0.81\n")
