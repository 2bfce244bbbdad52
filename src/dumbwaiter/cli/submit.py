"""``dumbwaiter submit``, ``result`` and ``cancel``: straight on the queue, or through a gateway."""

from __future__ import annotations

import asyncio
import itertools
import shlex
import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dumbwaiter.answers import failure_of, timings_of
from dumbwaiter.cli.asking import Asking, asked_again, asking, gateway_options, is_through_gateway, same_way
from dumbwaiter.cli.inputs import Input, inputs_of
from dumbwaiter.cli.options import Command, json_option, settings_options
from dumbwaiter.cli.output import print_json_line
from dumbwaiter.cli.putting import (
    OutputFolder,
    Put,
    Stream,
    json_output,
    print_alone,
    print_beside_name,
    refuse_bytes,
)
from dumbwaiter.cli.submit_window import in_order
from dumbwaiter.cli.watching import unless_failing, with_reason
from dumbwaiter.client import Cancellation
from dumbwaiter.config import parse_duration
from dumbwaiter.errors import (
    AccessError,
    BadInputError,
    BlobNotFoundError,
    ConfigError,
    DumbwaiterError,
    InputRefusedError,
    PredictionError,
    PredictionTimeoutError,
    QueueNotFoundError,
)
from dumbwaiter.prediction import status_of
from dumbwaiter.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dumbwaiter.message import Message

_NOTHING_KNOWN = "nothing is known of {}: if it waits it will not run; if you mistyped it, cancel the right one"
_SHOWN_IDS = 3
_BAD_INPUT = "bad-input"
"""The failure code of an input that the model does not take."""


class _Asked(NamedTuple):
    """What the command line of ``submit`` asks for."""

    model: str
    inputs: Sequence[Input]
    content_type: str | None
    wait: float
    as_json: bool
    under_way: dict[str, None]
    """The ids of those that were handed in and not answered, in their order. Ctrl-C leaves them here."""


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
@click.option("--stream", "as_stream", is_flag=True, help="Print each output of a generator model as it comes.")
@click.option("--no-wait", is_flag=True, help="Print the id at once; fetch the kept result later with `result`.")
@gateway_options
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
    as_stream: bool,
    no_wait: bool,
    as_json: bool,
) -> int:
    """Send each INPUT to MODEL and print the answers, in the order of the inputs.

    They go straight on the model's queue, or with --gateway through one, from anywhere. An INPUT is a file, - for
    standard input, or a text. With --json each answer is a line of data. A failed answer makes the exit code 1. Ctrl-C
    ends the waiting, not what a worker has begun. To end that, leave it with --no-wait, then `dumbwaiter cancel ID`.

    Examples:
      dumbwaiter submit infer cat.jpg
      dumbwaiter submit embedder "a cat on a mat"
      dumbwaiter submit adder --data '{"a": 1, "b": 2}'
      dumbwaiter submit resize --output-dir small photos/*.jpg
      dumbwaiter submit writer --stream "Once upon a time"
      dumbwaiter submit infer --gateway https://models.example.com cat.jpg
      id=$(dumbwaiter submit infer --no-wait cat.jpg); dumbwaiter result --wait 30s $id

    """
    _refuse_two(
        {"--output-dir": output_dir is not None, "--stream": as_stream, "--no-wait": no_wait},
        {"--output-dir": output_dir is not None, "--json": as_json},
    )
    inputs = inputs_of(arguments, values, as_text=as_text)
    asked = _Asked(model, inputs, content_type, wait, as_json, {})
    if no_wait:
        return _run(_leave(asked), lambda: _left(asked))
    if as_stream:
        return _run(_stream(asked), lambda: "gave up the stream; its request is cancelled, unless it had ended")
    return _run(_ask(asked, _put_for(inputs, output_dir)), lambda: _gave_up(asked))


@click.command(cls=Command)
@click.argument("id_", metavar="ID")
@click.option("--wait", callback=_seconds, default="0s", show_default=True, metavar="TIME", help="Longest wait.")
@gateway_options
@json_option
@settings_options
def result(id_: str, wait: float, *, as_json: bool) -> int:
    """Print the kept result of a request that was submitted with --no-wait.

    Exit code 1: it failed, or there is no result (yet). Ctrl-C ends the waiting, not the request.

    Examples:
      dumbwaiter result --wait 30s 019ab3c4d5e6f708192a3b4c5d6e7f80
      dumbwaiter result --gateway https://models.example.com $id

    """
    try:
        answer = asyncio.run(_fetch(id_, wait))
    except KeyboardInterrupt:
        again = shlex.join([*same_way(), id_])
        hint = f"ask again: dumbwaiter result {again}, or end it: dumbwaiter cancel {again}"
        print(f"gave up waiting for {id_}; {hint}", file=sys.stderr)
        raise
    return _show(id_, answer, as_json=as_json, put=print_alone)


@click.command(cls=Command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@gateway_options
@json_option
@settings_options
def cancel(ids: tuple[str, ...], *, as_json: bool) -> int:
    """Cancel requests that were submitted with --no-wait: one that waits never runs, one that runs is stopped.

    Exit code 1: one of them had ended before.

    Examples:
      dumbwaiter cancel 019ab3c4d5e6f708192a3b4c5d6e7f80
      dumbwaiter cancel --gateway https://models.example.com $id

    """
    return asyncio.run(_cancel(ids, as_json=as_json))


def _run(work: Coroutine[Any, Any, int], say: Callable[[], str]) -> int:
    """Run *work*; Ctrl-C ends it, with a line that says what becomes of what was under way."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        print(say(), file=sys.stderr)
        raise


def _left(asked: _Asked) -> str:
    count = len(asked.under_way)
    if not count:
        return "nothing was handed in"
    way = shlex.join([*same_way(), "ID"])
    return (
        f"handed in {count} of {len(asked.inputs)}, which stays so; fetch a result: dumbwaiter result {way}, or end a "
        f"request: dumbwaiter cancel {way}"
    )


def _gave_up(asked: _Asked) -> str:
    count = len(asked.under_way)
    if not count:
        return "nothing was under way"
    ids = ", ".join(itertools.islice(asked.under_way, _SHOWN_IDS))
    more = f" and {count - _SHOWN_IDS} more" if count > _SHOWN_IDS else ""
    # A gateway gives out ids only with its answers.
    named = "" if is_through_gateway() else f": {ids}{more}"
    return (
        f"gave up waiting for {count} answer{'' if count == 1 else 's'}{named}; a worker may still run what waits, and "
        "nobody gets the answer; with --no-wait it could be fetched or cancelled by its id"
    )


@contextmanager
def _under_way(ids: dict[str, None], id_: str) -> Iterator[None]:
    """Among *ids* until there is an answer, or an error in its place. Being cancelled is neither."""
    ids[id_] = None
    try:
        yield
    except Exception:
        ids.pop(id_)
        raise
    ids.pop(id_)


def _put_for(inputs: Sequence[Input], output_dir: Path | None) -> Put:
    if output_dir is not None:
        return OutputFolder(output_dir, inputs).put
    return print_alone if len(inputs) == 1 else print_beside_name


def _refuse_two(*sets: Mapping[str, bool]) -> None:
    for flags in sets:
        given = [name for name, is_given in flags.items() if is_given]
        if len(given) > 1:
            raise click.UsageError(f"{given[0]} and {given[1]} exclude each other")


async def _leave(asked: _Asked) -> int:
    async with asking() as (client, _):
        for given in asked.inputs:
            message = given.message(asked.model, content_type=asked.content_type, patience=None)
            handle = await client.submit_message(asked.model, message, keep=True, timeout=asked.wait)
            asked.under_way[handle.id] = None
            if asked.as_json:
                print_json_line({"input": given.name, "id": handle.id})
            else:
                print(handle.id, flush=True)
    return 0


async def _stream(asked: _Asked) -> int:
    if len(asked.inputs) > 1:
        raise click.UsageError(f"--stream is for one input at a time, and here are {len(asked.inputs)}")
    (given,) = asked.inputs
    message = given.message(asked.model, content_type=asked.content_type, patience=None)
    async with AsyncExitStack() as stack:
        client, store = await stack.enter_async_context(asking())
        if store is not None:
            await stack.enter_async_context(unless_failing(store, asked.model))
        outputs = client.stream_message(asked.model, message, timeout=asked.wait)
        shown = stack.enter_context(Stream(as_json=asked.as_json))
        async with aclosing(outputs):
            try:
                async for output in outputs:
                    shown.put(output.content_type, output.body)
            except PredictionError as error:
                if error.failure.code != _BAD_INPUT or not given.doubt:
                    raise
                raise click.ClickException(f"{error}{given.doubt}") from None
    return 0


async def _ask(asked: _Asked, put: Put) -> int:
    worst = 0
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(asking())
        if opened.store is not None:
            await stack.enter_async_context(unless_failing(opened.store, asked.model))
            if not asked.as_json and put in (print_alone, print_beside_name):
                await refuse_bytes(opened.store, asked.model, several=put is print_beside_name)

        async def ask(given: Input) -> Message:
            return await _ask_one(asked, opened, given)

        with _progress(len(asked.inputs)) as advance:
            async for given, task in in_order(asked.inputs, ask):
                worst = max(worst, _show_outcome(given, task, as_json=asked.as_json, put=put))
                advance()
    return worst


async def _ask_one(asked: _Asked, opened: Asking, given: Input) -> Message:
    # A gateway counts the patience by its own clock, which need not agree with ours.
    patience = None if opened.store is None else asked.wait
    message = given.message(asked.model, content_type=asked.content_type, patience=patience)
    try:
        with _under_way(asked.under_way, message.id):
            return await opened.client.predict_message(asked.model, message, timeout=asked.wait)
    except PredictionTimeoutError as error:
        if opened.store is None:
            raise
        raise await with_reason(opened.store, asked.model, error) from None


async def _fetch(id_: str, wait: float) -> Message:
    async with asking() as (client, _):
        if wait:
            try:
                return await client.result_message(id_, wait)
            except PredictionTimeoutError as error:
                raise click.ClickException(f"{error}; ask again: {asked_again(id_)}") from None
        try:
            return await client.load_message(id_)
        except BlobNotFoundError:
            raise click.ClickException(
                f"no result of {id_!r}: it waits or runs still (then try --wait 30s), or no such request was kept"
            ) from None


async def _cancel(ids: Sequence[str], *, as_json: bool) -> int:
    worst = 0
    async with asking() as (client, _):
        for id_ in ids:
            outcome = await client.cancel(id_)
            is_canceled = bool(outcome)
            status = "canceled" if is_canceled else status_of(failure_of(await client.load_message(id_)))
            if outcome is Cancellation.UNKNOWN:
                print(_NOTHING_KNOWN.format(id_), file=sys.stderr)
            if as_json:
                print_json_line({"id": id_, "status": status})
            elif is_canceled:
                print(f"canceled {id_}", flush=True)
            else:
                _complain(id_, f"it had {status} before; see: dumbwaiter result {id_}")
            worst = max(worst, 0 if is_canceled else 1)
    return worst


def _show_outcome(given: Input, task: asyncio.Task[Message], *, as_json: bool, put: Put) -> int:
    name, error = given.name, task.exception()
    if error is None:
        return _show(name, task.result(), as_json=as_json, put=put, doubt=given.doubt)
    # Without its queue, the right name or the right key, no other input can fare better; any other trouble may be this
    # input's own.
    if isinstance(error, QueueNotFoundError | AccessError | ConfigError) or not isinstance(
        error, DumbwaiterError | click.ClickException
    ):
        raise error
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if as_json:
        print_json_line({"input": name, "status": "failed", "error": {"code": type(error).__name__, "message": text}})
    else:
        _complain(name, text + (given.doubt if isinstance(error, BadInputError | InputRefusedError) else ""))
    return 1


def _show(name: str, answer: Message, *, as_json: bool, put: Put, doubt: str = "") -> int:
    """Print one answer, or *put* its output where it belongs; 1 if it is a failure. *doubt*: why it may be refused."""
    failure = failure_of(answer)
    if as_json:
        outcome = {"output": json_output(answer)} if failure is None else {"error": failure}
        facts = {"input": name, "id": answer.correlation_id, "status": status_of(failure)}
        print_json_line({**facts, **outcome, "timings": timings_of(answer)})
    elif failure is not None:
        _complain(name, f"{failure.code}: {failure.message}{doubt if failure.code == _BAD_INPUT else ''}")
    else:
        put(name, answer)
    return 0 if failure is None else 1


def _complain(name: str, text: str) -> None:
    print(f"dumbwaiter: error: {name}: {printable(text, keep_lines=True)}", file=sys.stderr)


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
