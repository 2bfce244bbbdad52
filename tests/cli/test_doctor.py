"""``dumbwaiter doctor``, as a person and as a program calls it."""

from __future__ import annotations

import json
import os

import pytest

from dumbwaiter.brokers.findings import Finding, worst
from dumbwaiter.brokers.sqlite import SqliteBroker, examining
from dumbwaiter.brokers.sqlite.examining import examine
from dumbwaiter.cli import main


def test_a_file_on_a_disk_is_well(tmp_path, capsys):
    assert main(["doctor", f"sqlite://{tmp_path}/queue.db"]) == 0
    said = capsys.readouterr().out
    assert f"broker sqlite://{tmp_path}/queue.db" in said
    assert "ok       durability: what was confirmed is synced to the disk of" in said
    assert "ok       lock: a delivery stays locked for 30 s" in said
    assert "note     replication: none" in said


def test_the_settings_name_the_broker_and_programs_get_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DUMBWAITER_BROKER", f"sqlite://{tmp_path}/queue.db")
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["broker"] == f"sqlite://{tmp_path}/queue.db"
    assert said["worst"] == "note"
    assert {finding["subject"] for finding in said["findings"]} >= {"durability", "lock", "largest message", "room"}


def test_a_file_that_is_not_there_is_a_note_and_is_not_made(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["doctor"], ["doctor", f"sqlite://{tmp_path}/nonexistent/x.db"]):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert "is not there yet" in said
        assert "durability" in said
    assert list(tmp_path.iterdir()) == []


def test_a_danger_is_exit_code_1_with_the_line_to_change(capsys):
    assert main(["doctor", "memory:"]) == 1
    said = capsys.readouterr().out
    assert "danger   durability: all messages are in this process's memory" in said
    assert "-> --broker sqlite:.dumbwaiter/queue.db" in said


def test_a_broker_that_is_not_there_is_an_error_and_no_finding(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["doctor", f"sqlite://{tmp_path}/file/queue.db"]) == 3
    assert "cannot use the folder of" in capsys.readouterr().err
    assert main(["doctor", "nonsense"]) == 2


def test_programs_get_json_also_when_there_is_nothing_to_examine(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    for url, code in ((f"sqlite://{tmp_path}/file/queue.db", 3), ("ftp://user:s3cret@host", 2)):
        assert main(["doctor", "--json", url]) == code
        out, err = capsys.readouterr()
        said = json.loads(out)
        assert (said["worst"], said["findings"]) == (None, [])
        assert said["error"] in err
        assert "s3cret" not in out + err
    assert main(["doctor", "--json", f"sqlite://{tmp_path}/queue.db"]) == 0
    assert json.loads(capsys.readouterr().out)["error"] is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(ValueError("no JSON"), "does not answer as its product does (ValueError: no JSON)"), (TimeoutError(), "30 s")],
)
def test_a_server_that_answers_what_no_such_product_does_is_an_error_too(tmp_path, capsys, monkeypatch, fault, reason):
    async def stumble(self, *, longest_run=None):
        raise fault

    monkeypatch.setattr(SqliteBroker, "examine", stumble)
    (tmp_path / "queue.db").touch()
    assert main(["doctor", "--json", f"sqlite://{tmp_path}/queue.db"]) == 3
    assert reason in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("length", ["-5", "0", "nan", "inf", "soon", "9" * 400])
def test_the_longest_run_takes_some_seconds(capsys, length):
    assert main(["doctor", "memory:", "--longest-run", length]) == 2
    assert "write a time above 0, such as 90s, 10m or 1h" in capsys.readouterr().err


@pytest.mark.parametrize("there", [True, False])
def test_who_asks_for_the_longest_run_gets_an_answer(tmp_path, capsys, there):
    if there:
        (tmp_path / "queue.db").touch()
    assert main(["doctor", f"sqlite://{tmp_path}/queue.db", "--longest-run", "1h"]) == 0
    said = capsys.readouterr().out
    assert "ok       long runs: the longest run takes 3600 s: its lock of 30 s is renewed meanwhile" in said
    assert main(["doctor", f"sqlite://{tmp_path}/queue.db"]) == 0
    assert "long runs" not in capsys.readouterr().out


def test_a_broker_that_is_named_twice_is_refused(tmp_path, capsys):
    assert main(["doctor", f"sqlite://{tmp_path}/queue.db", "--broker", "memory:"]) == 2
    assert "the broker is named twice, as URL and as --broker" in capsys.readouterr().err
    assert main(["doctor", "--broker", f"sqlite://{tmp_path}/queue.db"]) == 0


@pytest.mark.parametrize("words", [["URL"], ["--broker", "URL"]])
def test_a_queue_that_is_not_there_is_to_be_looked_for_at_the_same_broker(tmp_path, capsys, words):
    url = f"sqlite://{tmp_path}/queue.db"
    (tmp_path / "queue.db").touch()
    assert main(["doctor", *(url if word == "URL" else word for word in words), "--queue", "infer"]) == 0
    assert f"-> dumbwaiter queues --broker {url}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "level"), [("tmpfs", "danger"), ("ext4", "ok")])
def test_a_file_in_memory_ends_with_the_machine(tmp_path, monkeypatch, kind, level):
    monkeypatch.setattr(examining, "file_system_of", lambda folder, mounts: kind)
    durability = examine(tmp_path)[0]
    assert (durability.subject, durability.level) == ("durability", level)


def test_a_disk_that_is_nearly_full_is_a_warning(tmp_path, monkeypatch):
    disk = os.statvfs(tmp_path)
    monkeypatch.setattr(examining, "LITTLE_ROOM_NBYTES", disk.f_blocks * disk.f_frsize + 1)
    room = examine(tmp_path)[1]
    assert (room.subject, room.level) == ("room", "warning")
    assert room.remedy


def test_the_worst_finding_counts():
    levels = ["ok", "warning", "danger", "note"]
    findings = [Finding(level=level, subject="s", text="t") for level in levels]
    assert worst(findings) == "danger"
    assert worst(findings[:2]) == "warning"
    assert worst([findings[0], findings[3]]) == "note"
    assert worst([]) == "ok"
