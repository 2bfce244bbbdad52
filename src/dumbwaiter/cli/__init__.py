"""The command line. Each group of commands is a file of its own, imported only when it is asked for.

Exit codes: 0 done or stopped as asked, 1 failure, 2 wrong usage or settings, 3 doctor examined nothing, 130
interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from dumbwaiter.cli.first_process import work_as_child_of_process_1
from dumbwaiter.cli.options import LazyGroup
from dumbwaiter.errors import ConfigError, DumbwaiterError
from dumbwaiter.printable import printable

#: Command -> "module:attribute" and its line in --help (said here, so that --help imports nothing).
COMMANDS = {
    "serve": ("dumbwaiter.cli.serve:serve", "Serve models on this machine: gateway, courier and workers."),
    "gateway": ("dumbwaiter.cli.runtimes:gateway", "Run one gateway: REST in, queue out."),
    "worker": ("dumbwaiter.cli.runtimes:worker", "Run one worker: it pulls from its model's queue."),
    "autoscale": ("dumbwaiter.cli.autoscale:autoscale", "Run as many workers as the work asks for, down to none."),
    "scaler": ("dumbwaiter.cli.scaler:scaler", "Run what KEDA asks how many workers a model needs."),
    "courier": ("dumbwaiter.cli.courier:courier", "Run one courier: it posts webhooks and replies to their URLs."),
    "submit": ("dumbwaiter.cli.submit:submit", "Ask a model, by queue or gateway, and print the answers."),
    "result": ("dumbwaiter.cli.submit:result", "Print a kept result by its id."),
    "cancel": ("dumbwaiter.cli.submit:cancel", "Cancel kept requests by their ids."),
    "queues": ("dumbwaiter.cli.queues:queues", "Show what waits, runs and failed in each queue."),
    "dead-letters": ("dumbwaiter.cli.dead_letters:dead_letters", "List, show, redrive or purge failed messages."),
    "devices": ("dumbwaiter.cli.devices:devices", "Show whose models share a GPU's memory, and who waits for it."),
    "doctor": ("dumbwaiter.cli.doctor:doctor", "Say what a broker guarantees, and what to change."),
    "plan": ("dumbwaiter.cli.plan:plan", "Simulate what scaling will cost, and how late answers will be."),
    "keys": ("dumbwaiter.cli.keys:keys", "Make, list, rotate and revoke the API keys of callers."),
    "deploy": ("dumbwaiter.cli.deploy:deploy", "Render what runs this project elsewhere, such as on Kubernetes."),
    "probe": ("dumbwaiter.cli.probe:probe", "Say whether a worker or courier of this machine lives."),
    "version": ("dumbwaiter.cli.version:version", "Print the version."),
}


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from dumbwaiter.cli.version import version  # noqa: PLC0415 - only where it is asked for

        ctx.invoke(version, as_json=False)
        ctx.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """Serve deep networks through a message broker: requests wait in a queue, workers pull them when they can.

    Examples:
      dumbwaiter serve network:Infer --weights weights.safetensors
      curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8080/v1/models/infer/predictions
      dumbwaiter submit infer cat.jpg dog.jpg
      dumbwaiter queues

    Settings come from ./dumbwaiter.toml, then DUMBWAITER_* variables, then flags. Queues, results and locks of the
    default broker live in .dumbwaiter/ beside the project. DUMBWAITER_DEBUG=1 shows tracebacks.

    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become one line on stderr."""
    if arguments is None:
        work_as_child_of_process_1()
    try:
        code = cli.main(args=arguments, prog_name="dumbwaiter", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`). The interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, click.Abort):
        return 130
    except Exception as error:
        return _complain(error)


def _complain(error: Exception) -> int:
    if os.environ.get("DUMBWAITER_DEBUG"):
        traceback.print_exception(error)
    text, code = _say(error)
    print(f"dumbwaiter: error: {printable(text, keep_lines=True)}", file=sys.stderr)
    return code


def _say(error: Exception) -> tuple[str, int]:
    """The one line and the exit code for *error*."""
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "dumbwaiter"
        # click speaks in sentences, we in clauses: "No such option '-x'." becomes "no such option '-x'; see: ..."
        message = error.format_message().removesuffix(".")
        message = f"{message[:1].lower()}{message[1:]}".replace(". Did you mean", "; did you mean")
        return f"{message}{'' if message.endswith('?') else ';'} see: {path} --help", 2
    if isinstance(error, click.ClickException):
        return error.format_message(), error.exit_code
    if isinstance(error, ConfigError):
        return str(error), 2
    if isinstance(error, DumbwaiterError):
        return str(error), 1
    where = "" if os.environ.get("DUMBWAITER_DEBUG") else " (DUMBWAITER_DEBUG=1 shows where)"
    return f"unexpected {type(error).__name__}: {error}{where}", 1
