"""Options of ``dumbwaiter plan`` that would change nothing."""

from __future__ import annotations

import pytest

from dumbwaiter.cli import main

MADE_UP = ("--generate", "poisson", "--service", "1", "--duration", "1m", "--seeds", "1")


@pytest.mark.parametrize(
    "option",
    [["--push"], ["--no-limits"], ["--cooldown", "300s"], ["--polling-interval", "5"], ["--stabilization", "60"]],
    ids=" ".join,
)
def test_what_only_kubernetes_has_is_refused_without_it(option, capsys):
    assert main(["plan", *MADE_UP, *option]) == 2
    assert f"{option[0]} means nothing without KEDA; say --on keda too" in capsys.readouterr().err
    assert main(["plan", *MADE_UP, *option, "--on", "keda", "--signal", "age"]) == 0


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (["--rate", "5"], "for a TRACE, which has its own"),
        (["--duration", "2h"], "for a TRACE, which has its own"),
        (["--seeds", "10"], "for a TRACE without chance in it"),
        (["--max-batch", "4"], "for one input at a time"),
        (["--heavy", "3:0.5"], "where nobody says what other inputs take"),
        (["--notice", "1s"], "where no worker is taken away"),
        (["--signal", "age", "--spare", "1"], "without work in --signal"),
        (["--signal", "work", "--messages-each", "1"], "without messages in --signal"),
        (["--signal", "work", "--age-target", "1"], "without age in --signal"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_trace_leaves_no_room_for_is_refused(option, reason, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("arrival,service\n0,1\n5,1\n")
    assert main(["plan", str(tmp_path / "t.csv"), *option]) == 2
    said = capsys.readouterr().err
    assert f"{option[-2]} means nothing {reason}" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("option", [["--faster", "1"], ["--of", "all"]], ids=" ".join)
def test_what_is_of_a_trace_is_refused_without_one(option, capsys):
    assert main(["plan", *MADE_UP, *option]) == 2
    assert f"{option[0]} means nothing for requests that are made up; name a TRACE" in capsys.readouterr().err


def test_what_means_something_is_taken(tmp_path):
    (tmp_path / "t.csv").write_text("arrival\n0\n5\n")
    chance = ["--seeds", "2", "--spot-kills", "1", "--notice", "5s", "--curve", "0.1+0.1b", "--max-batch", "4"]
    assert main(["plan", str(tmp_path / "t.csv"), *chance, "--faster", "2", "--heavy", "3:0.5"]) == 0
