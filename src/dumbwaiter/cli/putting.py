"""Where the outputs that ``dumbwaiter submit`` gets go: to stdout as they are, into JSON, or into files of a folder."""

from __future__ import annotations

import contextlib
import mimetypes
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import msgspec

from dumbwaiter.blobs.presence import workers_of
from dumbwaiter.cli.inputs import Input
from dumbwaiter.cli.output import print_json_line
from dumbwaiter.content_types import BYTES, parse_content_type
from dumbwaiter.errors import BlobError
from dumbwaiter.message import Message

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore

Put = Callable[[str, Message], None]
"""Takes the name of an input and the answer that holds its output."""
_BINARY = {"image": "image/png", "bytes": "bytes", "array": "application/x-npy", "tensor": "application/x-npy"}
_SUFFIXES = {"application/x-npy": ".npy", "image/jpeg": ".jpg", "text/plain": ".txt"}


def print_alone(_: str, answer: Message) -> None:
    """The only output, as it is. On a terminal JSON is indented, and bytes raise click.ClickException."""
    body = answer.body
    if _is_binary(answer):
        if sys.stdout.isatty():
            raise _refusal(_kind_of(answer), several=False)
    elif _is_json(answer) and sys.stdout.isatty():
        body = msgspec.json.format(body, indent=2)
    _write(body if _is_binary(answer) else body + b"\n")


def print_beside_name(name: str, answer: Message) -> None:
    """One of several outputs, on a line with its input's *name*. Raises click.ClickException for bytes."""
    if _is_binary(answer):
        raise _refusal(_kind_of(answer), several=True)
    _write(f"{name}\t".encode(errors="surrogateescape") + answer.body + b"\n")


class OutputFolder:
    """Outputs as files of *folder*, named after the *inputs*. None is ever overwritten.

    Raises click.UsageError when two would have one name, or when one of that name is there already.
    """

    def __init__(self, folder: Path, inputs: Sequence[Input]) -> None:
        self._folder = folder
        self._stems: dict[str, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = {file.stem: f"{file} is there already; choose another --output-dir" for file in folder.iterdir()}
        except OSError as error:
            raise click.UsageError(f"--output-dir {folder} cannot be used: {error.strerror}") from None
        for number, given in enumerate(inputs, start=1):
            stem = given.file.stem if given.file is not None else f"input-{number}"
            if given.name in self._stems:
                raise click.UsageError(f"{given.name} is given twice, and --output-dir names outputs after the inputs")
            if stem in taken:
                raise click.UsageError(f"the output of {given.name} has no place: {taken[stem]}")
            self._stems[given.name] = stem
            taken[stem] = f"that of {given.name} has the same name; submit them one by one, into two folders"

    def put(self, name: str, answer: Message) -> None:
        """Write the output of the input *name* and print the file's name. Raises click.ClickException."""
        kind = _kind_of(answer)
        suffix = _SUFFIXES.get(kind) or mimetypes.guess_extension(kind) or ".bin"
        path = self._folder / f"{self._stems[name]}{suffix}"
        try:
            with path.open("xb") as file:
                file.write(answer.body)
        except OSError as error:
            raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
        print(path, flush=True)


class Stream:
    """The outputs of a stream on stdout as they come: texts behind one another, all else a line each.

    Bytes go as they are, and raise click.ClickException on a terminal.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._in_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_line:
            _write(b"\n")

    def put(self, content_type: str | None, body: bytes) -> None:
        """One more output."""
        output = Message(body=body, content_type=content_type)
        if self._as_json:
            print_json_line({"output": json_output(output)})
        elif _is_json(output):
            _write(body + b"\n")
        elif _is_binary(output):
            if sys.stdout.isatty():
                raise _refusal(_kind_of(output), several=False)
            _write(body)
        else:
            _write(body)
            self._in_line = not body.endswith(b"\n")


async def refuse_bytes(store: BlobStore, model: str, *, several: bool) -> None:
    """Raise click.ClickException if *model* says that its outputs are bytes, and stdout is not for them."""
    if not several and not sys.stdout.isatty():
        return
    with contextlib.suppress(BlobError):  # then the first output tells
        for status in await workers_of(store, model):
            output: dict[str, Any] = status.signature.get("output", {})
            if output.get("kind") in _BINARY and not status.signature.get("streaming"):
                raise _refusal(_BINARY[output["kind"]], several=several)


def json_output(answer: Message) -> Any:
    """The output for a place in JSON: JSON as it is, text as a string, bytes in base64 with their type."""
    if _is_json(answer):
        return msgspec.Raw(answer.body)
    return {"content_type": _kind_of(answer), "base64": answer.body} if _is_binary(answer) else answer.body.decode()


def _refusal(kind: str, *, several: bool) -> click.ClickException:
    if several:
        return click.ClickException(
            f"the outputs are {kind}, which cannot share one stream; say --output-dir DIR or --json, or give one input"
            " at a time: … > FILE"
        )
    return click.ClickException(
        f"the output is {kind}, which is not for a terminal; write it to a file: … > FILE, or say --json"
    )


def _kind_of(answer: Message) -> str:
    return parse_content_type(answer.content_type).essence or BYTES


def _is_json(answer: Message) -> bool:
    return parse_content_type(answer.content_type).is_json


def _is_binary(answer: Message) -> bool:
    said = parse_content_type(answer.content_type)
    return not (said.is_json or said.is_text)


def _write(body: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
