"""Signs of life: fresh ones are believed, old and broken ones are told."""

from __future__ import annotations

import json
import time

import pytest

from dumbwaiter.heartbeat import STALE_AFTER, SilentError, beat, look


def write(file, *, age, state="ready"):
    file.write_text(json.dumps({"state": state, "at": time.clock_gettime(time.CLOCK_BOOTTIME) - age}))


def test_what_was_told_last_is_seen(tmp_path):
    file = tmp_path / "deep" / "heartbeat"
    beat(file, "loading")
    beat(file, "ready")
    found = look(file)
    assert found.state == "ready"
    assert 0 <= found.age < 10
    assert [path.name for path in file.parent.iterdir()] == ["heartbeat"]


def test_none_is_told(tmp_path):
    with pytest.raises(SilentError, match="no sign of life"):
        look(tmp_path / "heartbeat")


def test_an_old_one_is_told_with_its_age(tmp_path):
    file = tmp_path / "heartbeat"
    write(file, age=STALE_AFTER + 20)
    with pytest.raises(SilentError, match="80 s old"):
        look(file)


def test_one_just_fresh_enough_counts(tmp_path):
    file = tmp_path / "heartbeat"
    write(file, age=STALE_AFTER - 10)
    assert look(file).state == "ready"


def test_one_of_before_the_machine_started_anew_does_not_count(tmp_path):
    file = tmp_path / "heartbeat"
    write(file, age=-5000.0)
    with pytest.raises(SilentError, match="old"):
        look(file)


@pytest.mark.parametrize("text", ["", "{", '{"state": 1}', "[]"])
def test_a_damaged_one_is_told(tmp_path, text):
    file = tmp_path / "heartbeat"
    file.write_text(text)
    with pytest.raises(SilentError, match="can be read"):
        look(file)
