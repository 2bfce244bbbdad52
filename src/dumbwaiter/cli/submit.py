"""``dumbwaiter submit`` and ``dumbwaiter result``: straight on the queue, without a gateway."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dumbwaiter.answers import failure_of, timings_of
from dumbwaiter.cli.connect import connected
from dumbwaiter.cli.inputs import Input, inputs_of
from dumbwaiter.cli.options import Command, current_settings, json_option, settings_options
from dumbwaiter.cli.output import print_json_line
from dumbwaiter.cli.putting import OutputFolder, Put, json_output, print_alone, print_beside_name, refuse_bytes
from dumbwaiter.cli.watching import unless_failing, with_reason
from dumbwaiter.client import AsyncClient
from dumbwaiter.config import Settings, parse_duration
from dumbwaiter.errors import BlobNotFoundError, DumbwaiterError, PredictionTimeoutError, QueueNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dumbwaiter.message import Message

_IN_FLIGHT = 32


def _seconds(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None


@click.command(cls=Command)
@click.argument("model")
@click.argument("arguments", metavar="[INPUT]...", nargs=-1)
@click.option("-d", "--data", "values", multiple=True, metavar="JSON", help="A JSON value as input; may be repeated.")
@click.option("--text", "as_text", is_flag=True, help="INPUTs are texts, even where they look like files.")
@click.option("--content-type", metavar="TYPE", help="What the inputs are; by default guessed.")
@click.option("--wait", callback=_seconds, default="60s", show_default=True, metavar="TIME", help="Longest wait.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write outputs into files of DIR, named after the inputs.",
)
@click.option("--no-wait", is_flag=True, help="Print the id at once; fetch the kept result later with `result`.")
@json_option
@settings_options
def submit(
    model: str,
    arguments: tuple[str, ...],
    values: tuple[str, ...],
    *,
    as_text: bool,
    content_type: str | None,
    wait: float,
    output_dir: Path | None,
    no_wait: bool,
    as_json: bool,
) -> int:
    """Send each INPUT to MODEL's queue and print the answers, in the order of the inputs.

    An INPUT is a file, - for standard input, or a text. The output is printed as it is; with --json each answer is one
    line: input, id, status, output or error, and where the time went. A failed answer makes the exit code 1.

    Examples:
      dumbwaiter submit infer cat.jpg
      dumbwaiter submit infer --json photos/*.jpg
      dumbwaiter submit embedder "a cat on a mat"
      dumbwaiter submit adder --data '{"a": 1, "b": 2}'
      dumbwaiter submit resize --output-dir small photos/*.jpg
      id=$(dumbwaiter submit infer --no-wait cat.jpg); dumbwaiter result --wait 30s $id

    """
    settings = current_settings()
    if output_dir is not None and (no_wait or as_json):
        raise click.UsageError(f"--output-dir and {'--no-wait' if no_wait else '--json'} exclude each other")
    inputs = inputs_of(arguments, values, as_text=as_text)
    if no_wait:
        return asyncio.run(_leave(settings, model, inputs, content_type, as_json=as_json))
    put = print_alone if len(inputs) == 1 else print_beside_name
    if output_dir is not None:
        put = OutputFolder(output_dir, inputs).put
    return asyncio.run(_ask(settings, model, inputs, content_type, wait=wait, as_json=as_json, put=put))


@click.command(cls=Command)
@click.argument("id_", metavar="ID")
@click.option("--wait", callback=_seconds, default="0s", show_default=True, metavar="TIME", help="Longest wait.")
@json_option
@settings_options
def result(id_: str, wait: float, as_json: bool) -> int:
    """Print the kept result of a request that was submitted with --no-wait.

    Exit code 1: it failed, or there is no result (yet).

    Example:
      dumbwaiter result --wait 30s 019ab3c4d5e6f708192a3b4c5d6e7f80

    """
    answer = asyncio.run(_fetch(current_settings(), id_, wait))
    return _show(id_, answer, as_json=as_json, put=print_alone)


async def _leave(
    settings: Settings, model: str, inputs: Sequence[Input], content_type: str | None, *, as_json: bool
) -> int:
    async with connected(settings) as (broker, store), AsyncClient(broker, blobs=store) as client:
        for given in inputs:
            message = given.message(model, content_type=content_type, patience=None)
            handle = await client.submit_message(model, message, keep=True)
            if as_json:
                print_json_line({"input": given.name, "id": handle.id})
            else:
                print(handle.id, flush=True)
    return 0


async def _ask(
    settings: Settings,
    model: str,
    inputs: Sequence[Input],
    content_type: str | None,
    *,
    wait: float,
    as_json: bool,
    put: Put,
) -> int:
    worst = 0
    async with (
        connected(settings) as (broker, store),
        AsyncClient(broker, blobs=store) as client,
        unless_failing(store, model),
    ):
        if not as_json and put in (print_alone, print_beside_name):
            await refuse_bytes(store, model, several=put is print_beside_name)

        async def ask(given: Input) -> Message:
            message = given.message(model, content_type=content_type, patience=wait)
            try:
                return await client.predict_message(model, message, timeout=wait)
            except PredictionTimeoutError as error:
                raise await with_reason(store, model, error) from None

        with _progress(len(inputs)) as advance:
            async for given, task in _in_order(inputs, ask):
                worst = max(worst, _show_outcome(given.name, task, as_json=as_json, put=put))
                advance()
    return worst


async def _in_order(inputs: Sequence[Input], ask: Any) -> AsyncIterator[tuple[Input, asyncio.Task[Message]]]:
    """Each input with its finished task, in order; a bounded number of them is under way."""
    tasks: dict[int, asyncio.Task[Message]] = {}
    try:
        for number, given in enumerate(inputs):
            for ahead in range(number, min(number + _IN_FLIGHT, len(inputs))):
                if ahead not in tasks:
                    tasks[ahead] = asyncio.create_task(ask(inputs[ahead]))
            await asyncio.wait({tasks[number]})
            yield given, tasks[number]
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _fetch(settings: Settings, id_: str, wait: float) -> Message:
    async with connected(settings) as (broker, store), AsyncClient(broker, blobs=store) as client:
        if wait:
            return await client.result_message(id_, wait)
        try:
            return await client.load_message(id_)
        except BlobNotFoundError:
            raise click.ClickException(
                f"no result of {id_!r}: it waits or runs still (then try --wait 30s), or no such request was kept"
            ) from None


def _show_outcome(name: str, task: asyncio.Task[Message], *, as_json: bool, put: Put) -> int:
    error = task.exception()
    if error is None:
        return _show(name, task.result(), as_json=as_json, put=put)
    # Without its queue no other input can fare better; any other trouble may be this input's own.
    if isinstance(error, QueueNotFoundError) or not isinstance(error, DumbwaiterError | click.ClickException):
        raise error
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if as_json:
        print_json_line({"input": name, "status": "failed", "error": {"code": type(error).__name__, "message": text}})
    else:
        _complain(name, text)
    return 1


def _show(name: str, answer: Message, *, as_json: bool, put: Put) -> int:
    """Print one answer, or *put* its output where it belongs; 1 if it is a failure."""
    failure = failure_of(answer)
    if as_json:
        outcome = {"output": json_output(answer)} if failure is None else {"error": failure}
        status = "succeeded" if failure is None else "failed"
        facts = {"input": name, "id": answer.correlation_id, "status": status}
        print_json_line({**facts, **outcome, "timings": timings_of(answer)})
    elif failure is not None:
        _complain(name, f"{failure.code}: {failure.message}")
    else:
        put(name, answer)
    return 0 if failure is None else 1


def _complain(name: str, text: str) -> None:
    print(f"dumbwaiter: error: {name}: {text}", file=sys.stderr)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr for many inputs, where people look at stderr but not at the outputs."""
    if total < 2 or not sys.stderr.isatty() or sys.stdout.isatty():
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 - only where it is seen
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("predicting", total=total)
        yield lambda: bar.advance(task)
