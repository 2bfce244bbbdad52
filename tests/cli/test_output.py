"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import time

import pytest

from dumbwaiter.cli.output import duration, local_time, preview, print_json, print_json_line, print_table
from processes import run_on_terminal


def test_json_for_a_program_is_one_line(capsys):
    for show in (print_json, print_json_line):
        show({"b": [1, 2], "a": "ü"})
        assert capsys.readouterr().out == '{"b":[1,2],"a":"ü"}\n'


def test_json_on_a_terminal_is_indented(project):
    code, shown = run_on_terminal(project, "version", "--json")
    assert code == 0
    assert shown.splitlines()[0] == "{"
    assert json.loads(shown)["dumbwaiter"]


def test_a_table_aligns_its_columns_and_shows_no_markup(capsys):
    print_table(("queue", "ready"), [("a", 1), ("[bold]", 1000)], right=("ready",))
    assert capsys.readouterr().out.splitlines() == [
        "queue   ready",
        "a           1",
        "[bold]   1000",
    ]


def test_a_table_is_neither_folded_nor_padded_where_a_program_reads_it(capsys):
    text = "word " * 100 + "end"
    print_table(("key", "detail"), [(1, text), (1000, "")])
    assert capsys.readouterr().out == f"key   detail\n1     {text}\n1000\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 ms"), (0.0034, "3.4 ms"), (1, "1 s"), (12.34, "12.3 s"), (240, "4 min"), (9000, "2.5 h")],
)
def test_durations_are_short(seconds, words):
    assert duration(seconds) == words


def test_times_are_local():
    assert local_time(86_400) == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(86_400))


@pytest.mark.parametrize(
    ("body", "shown"),
    [(b"abc", "abc"), (b"", ""), (b"abcdef", "abcd… (6 bytes)"), (b"\xff\xd8", "2 bytes, not text")],
)
def test_a_body_is_previewed(body, shown):
    assert preview(body, limit=4) == shown


def test_what_foreigners_wrote_gives_no_orders_to_the_terminal(capsys):
    print_table(("key", "detail"), [("id\x1b[2J", "a\nb\x9b0m")])
    out = capsys.readouterr().out
    assert out.splitlines()[1] == r"id\x1b[2J  a\nb\x9b0m"
