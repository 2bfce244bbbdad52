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
