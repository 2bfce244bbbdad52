"""What is true of all commands: exit codes, help that teaches, errors that name the place, and quiet pipes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from dumbwaiter.cli import COMMANDS, cli, main
from dumbwaiter.testing import eventually
from processes import environment


def all_commands():
    """Each command's words: ("serve",), ("dead-letters", "list"), ..."""
    words = [(name,) for name in COMMANDS]
    groups = {name: cli.get_command(click.Context(cli), name) for name in COMMANDS}
    return words + [
        (name, below) for name, group in groups.items() if isinstance(group, click.Group) for below in group.commands
    ]


def command_of(words):
    command = cli
    for word in words:
        command = command.get_command(click.Context(cli), word)
    return command


def help_of(*words):
    shown = CliRunner().invoke(cli, [*words, "--help"], prog_name="dumbwaiter")
    assert shown.exit_code == 0
    return shown.output


def test_help_lists_all_commands_with_what_they_do_and_where_settings_come_from():
    text = help_of()
    for name, (_, summary) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", text, re.MULTILINE), name
    for word in ("dumbwaiter.toml", "DUMBWAITER_*", ".dumbwaiter/", "DUMBWAITER_DEBUG=1", "Examples:"):
        assert word in text


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_the_help_of_every_command_says_what_it_does_shows_examples_and_names_every_option(words):
    text = help_of(*words)
    assert re.search(rf"^Usage: dumbwaiter {' '.join(words)}\b", text)
    examples = re.search(r"^  Examples?:\n((?:    .*\n)+)", text, re.MULTILINE)
    assert examples, "no examples, or not on lines of their own"
    for line in examples[1].splitlines():
        assert f"dumbwaiter {words[0]}" in line
    for parameter in command_of(words).params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{parameter.opts} is not explained"
            assert all(option in text for option in parameter.opts)


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_example_in_the_help_can_be_parsed(words):
    """Options that exist, and arguments in the right number; nothing is run."""
    examples = re.findall(r"^    (?:\w+=\S+ |id=\$\()?dumbwaiter ([^#>;)\n]*)", help_of(*words), re.MULTILINE)
    assert examples
    for example in examples:
        command, arguments = cli, shlex.split(example)
        while isinstance(command, click.Group):
            command, arguments = command.get_command(click.Context(cli), arguments[0]), arguments[1:]
        command.make_context("example", arguments)


def test_without_a_command_the_help_is_shown_on_stderr_and_the_exit_code_is_2(run):
    shown = run()
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "Commands:" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["serv"], "no command named 'serv'; did you mean 'serve'? see: dumbwaiter --help"),
        (["frobnicate"], "no command named 'frobnicate'; see: dumbwaiter --help"),
        (["queues", "--jsn"], "no such option '--jsn'; did you mean '--json'? see: dumbwaiter queues --help"),
        (["dead-letters", "sho"], "no command named 'sho'; did you mean 'show'? see: dumbwaiter dead-letters --help"),
        (["keys", "add"], "no command named 'add'; did you mean 'create'? see: dumbwaiter keys --help"),
        (["keys", "remove", "x"], "no command named 'remove'; did you mean 'revoke'? see: dumbwaiter keys --help"),
        (["plan", "--generate"], "option '--generate' requires an argument; see: dumbwaiter plan --help"),
        (
            ["dead-letters", "list", "--config"],
            "option '--config' requires an argument; see: dumbwaiter dead-letters list --help",
        ),
        (["worker"], "missing argument '[NAME=]MODULE:CLASS'; see: dumbwaiter worker --help"),
    ],
)
def test_wrong_usage_is_one_line_with_the_next_step_and_exit_code_2(capsys, arguments, complaint):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"dumbwaiter: error: {complaint}\n"


def test_a_wrong_setting_in_the_file_is_named_with_its_line(run, project):
    (project / "dumbwaiter.toml").write_text("# settings\n[gateway]\nprt = 9000\n")
    shown = run("queues")
    assert shown.returncode == 2
    assert shown.stderr == (
        f"dumbwaiter: error: {project}/dumbwaiter.toml:3: unknown setting 'gateway.prt'; did you mean 'port'?\n"
    )


def test_a_wrong_variable_is_named(run):
    shown = run("queues", DUMBWAITER_LOCK_DURATION="soon")
    assert shown.returncode == 2
    assert "environment variable DUMBWAITER_LOCK_DURATION: lock_duration: expected a duration" in shown.stderr


def test_a_wrong_flag_is_named(run):
    shown = run("serve", "light:Shout", "--port", "99999")
    assert shown.returncode == 2
    assert "--port: gateway.port: expected a whole number from 0 to 65535, not '99999'\n" in shown.stderr


def test_a_settings_file_that_is_not_there_is_named(run, project):
    shown = run("queues", "--config", "nowhere.toml")
    assert (shown.returncode, shown.stderr) == (
        2,
        f"dumbwaiter: error: no settings file at {project}/nowhere.toml\n",
    )


def test_a_failure_is_one_line_and_exit_code_1_and_debug_shows_where(run, project):
    arguments = ("dead-letters", "list", "nowhere")
    plain, debug = run(*arguments), run(*arguments, DUMBWAITER_DEBUG="1")
    assert plain.returncode == debug.returncode == 1
    assert plain.stderr == (
        f"dumbwaiter: error: there are no queues here: no sqlite:{project}/.dumbwaiter/queue.db;"
        " go to the project's folder, name its --broker, or start a worker first\n"
    )
    assert debug.stderr.startswith("Traceback (most recent call last):")
    assert debug.stderr.endswith(plain.stderr)


def test_what_nobody_foresaw_is_one_line_too_and_says_how_to_see_where(capsys, monkeypatch):
    monkeypatch.setitem(COMMANDS, "version", ("dumbwaiter.cli.version:no_such_attribute", ""))
    monkeypatch.delenv("DUMBWAITER_DEBUG", raising=False)
    assert main(["version"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("dumbwaiter: error: unexpected AttributeError: ")
    assert complaint.endswith(" (DUMBWAITER_DEBUG=1 shows where)\n")
    monkeypatch.setenv("DUMBWAITER_DEBUG", "1")
    assert main(["version"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error(project):
    """`dumbwaiter ... | head -0`: no traceback, and no complaint of the interpreter's."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dumbwaiter", "version"]
    done = subprocess.run(
        command, cwd=project, env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=50, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.fixture
def reading(project):
    """A command in the middle of reading its standard input."""
    command = [sys.executable, "-m", "dumbwaiter", "submit", "shout", "-"]
    process = subprocess.Popen(command, cwd=project, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"x" * 200_000)  # more than a pipe holds, so it is reading by now
    yield process
    process.kill()
    process.stdin.close()
    process.stderr.close()
    process.wait()


@pytest.mark.anyio
async def test_an_interrupted_command_exits_with_130_and_no_traceback(reading):
    def interrupted():
        # Again and again: Python sleeps through a signal that comes between its last look and the call that blocks.
        reading.send_signal(signal.SIGINT)
        return reading.poll() is not None

    await eventually(interrupted, within=30.0, every=0.3)
    assert (reading.returncode, reading.stderr.read().strip()) == (130, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ("queues",),
        ("queues", "--json"),
        ("dead-letters", "list"),
        ("dead-letters", "show", "shout", "1"),
        ("dead-letters", "redrive", "shout", "--all"),
        ("dead-letters", "purge", "shout", "--all", "--yes"),
        ("submit", "shout", "x"),
        ("submit", "shout", "x", "--no-wait"),
        ("result", "0123"),
        ("cancel", "0123"),
    ],
    ids=" ".join,
)
def test_in_the_wrong_folder_a_command_says_so_and_leaves_nothing_there(run, project, arguments):
    before = sorted(project.iterdir())
    shown = run(*arguments)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == (
        f"dumbwaiter: error: there are no queues here: no sqlite:{project}/.dumbwaiter/queue.db;"
        " go to the project's folder, name its --broker, or start a worker first\n"
    )
    assert sorted(project.iterdir()) == before
