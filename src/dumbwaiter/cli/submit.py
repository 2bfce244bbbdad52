"""``dumbwaiter submit`` and ``dumbwaiter result``: straight on the queue, without a gateway."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dumbwaiter.answers import failure_of, timings_of
from dumbwaiter.cli.connect import connected
from dumbwaiter.cli.inputs import Input, inputs_of
from dumbwaiter.cli.options import Command, current_settings, json_option, settings_options
from dumbwaiter.cli.output import print_json
from dumbwaiter.client import AsyncClient
from dumbwaiter.config import Settings, parse_duration
from dumbwaiter.errors import BlobNotFoundError, DumbwaiterError, QueueNotFoundError

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
@click.option("--no-wait", is_flag=True, help="Print the id at once; fetch the kept result later with `result`.")
@json_option
@settings_options
def submit(
    model: str,
    arguments: tuple[str, ...],
    values: tuple[str, ...],
    as_text: bool,
    content_type: str | None,
    wait: float,
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
      id=$(dumbwaiter submit infer --no-wait cat.jpg); dumbwaiter result --wait 30s $id

    """
    settings = current_settings()
    inputs = inputs_of(arguments, values, as_text=as_text)
    if no_wait:
        return asyncio.run(_leave(settings, model, inputs, content_type, as_json=as_json))
    return asyncio.run(_ask(settings, model, inputs, content_type, wait=wait, as_json=as_json))


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
    return _show(id_, answer, as_json=as_json, alone=True)


async def _leave(
    settings: Settings, model: str, inputs: Sequence[Input], content_type: str | None, *, as_json: bool
) -> int:
    async with connected(settings) as (broker, store), AsyncClient(broker, blobs=store) as client:
        for given in inputs:
            message = given.message(model, content_type=content_type, patience=None)
            handle = await client.submit_message(model, message, keep=True)
            if as_json:
                print_json({"input": given.name, "id": handle.id})
            else:
                print(handle.id, flush=True)
    return 0


async def _ask(
    settings: Settings, model: str, inputs: Sequence[Input], content_type: str | None, *, wait: float, as_json: bool
) -> int:
    worst = 0
    async with connected(settings) as (broker, store), AsyncClient(broker, blobs=store) as client:

        async def ask(given: Input) -> Message:
            message = given.message(model, content_type=content_type, patience=wait)
            return await client.predict_message(model, message, timeout=wait)

        with _progress(len(inputs)) as advance:
            async for given, task in _in_order(inputs, ask):
                worst = max(worst, _show_outcome(given.name, task, as_json=as_json, alone=len(inputs) == 1))
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


def _show_outcome(name: str, task: asyncio.Task[Message], *, as_json: bool, alone: bool) -> int:
    error = task.exception()
    if error is None:
        return _show(name, task.result(), as_json=as_json, alone=alone)
    # Without its queue no other input can fare better; any other trouble may be this input's own.
    if isinstance(error, QueueNotFoundError) or not isinstance(error, DumbwaiterError | click.ClickException):
        raise error
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if as_json:
        print_json({"input": name, "status": "failed", "error": {"code": type(error).__name__, "message": text}})
    else:
        _complain(name, text)
    return 1


def _show(name: str, answer: Message, *, as_json: bool, alone: bool) -> int:
    """Print one answer; 1 if it is a failure."""
    failure = failure_of(answer)
    if as_json:
        outcome = {"output": _json_output(answer)} if failure is None else {"error": failure}
        status = "succeeded" if failure is None else "failed"
        facts = {"input": name, "id": answer.correlation_id, "status": status}
        print_json({**facts, **outcome, "timings": timings_of(answer)})
    elif failure is not None:
        _complain(name, f"{failure.code}: {failure.message}")
    else:
        _print_output(name, answer, alone=alone)
    return 0 if failure is None else 1


def _complain(name: str, text: str) -> None:
    print(f"dumbwaiter: error: {name}: {text}", file=sys.stderr)


def _print_output(name: str, answer: Message, *, alone: bool) -> None:
    kind = (answer.content_type or "").partition(";")[0]
    is_json, is_text = kind.endswith("json"), kind.startswith("text/")
    if not alone:
        sys.stdout.write(f"{name}\t")
    elif not is_json and not is_text and sys.stdout.isatty():
        raise click.ClickException(f"the output is {len(answer.body)} bytes of {kind}; write it to a file: … > FILE")
    body = answer.body
    if is_json and alone and sys.stdout.isatty():
        body = msgspec.json.format(body, indent=2)
    sys.stdout.flush()
    sys.stdout.buffer.write(body + (b"" if alone and not is_json and not is_text else b"\n"))
    sys.stdout.buffer.flush()


def _json_output(answer: Message) -> Any:
    kind = (answer.content_type or "").partition(";")[0]
    if kind.endswith("json"):
        return msgspec.Raw(answer.body)
    return answer.body.decode() if kind.startswith("text/") else {"content_type": kind, "base64": answer.body}


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
