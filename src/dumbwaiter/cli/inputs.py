"""What ``dumbwaiter submit`` is given: files, standard input, texts and JSON values, each as a message."""

from __future__ import annotations

import mimetypes
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click
import msgspec

from dumbwaiter.content_types import sniff_image
from dumbwaiter.message import Message

SOURCE = "/dumbwaiter/cli"


class Input(msgspec.Struct, frozen=True):
    """One input: its *name* for people and where its body comes from. Files are read when their turn comes.

    *is_no_file*: it was taken for a text because no file is named so; perhaps one was meant.
    """

    name: str
    body: bytes | None = None
    content_type: str | None = None
    file: Path | None = None
    is_no_file: bool = False

    @property
    def doubt(self) -> str:
        """What to say behind the reason for which it was refused."""
        return f"; no file is named {self.name[:60]!r}, so it was sent as a text" if self.is_no_file else ""

    def message(self, model: str, *, content_type: str | None, patience: float | None) -> Message:
        """The request, due *patience* seconds from now. Raises click.ClickException for a file that cannot be read."""
        body = self.body if self.file is None else _read(self.file)
        now = time.time()
        return Message(
            body=body or b"",
            content_type=content_type or self.content_type or guess_content_type(self.name, body or b""),
            source=SOURCE,
            subject=model,
            time=now,
            deadline=None if patience is None else now + patience,
        )


def inputs_of(arguments: Sequence[str], values: Sequence[str], *, as_text: bool) -> list[Input]:
    """The inputs of a command line, in order: *arguments* (files, ``-``, texts), then the JSON *values*.

    Raises click.UsageError for a missing file, a folder, an empty argument, a value that is not JSON, or no input.
    """
    inputs = [_input_of(argument, as_text=as_text) for argument in arguments]
    for value in values:
        try:
            msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise click.UsageError(f"--data {value!r} is not JSON: {error}") from None
        inputs.append(Input(value, value.encode(), "application/json"))
    if not inputs:
        raise click.UsageError("no input; give a file, - for standard input, a text, or --data JSON")
    return inputs


def _input_of(argument: str, *, as_text: bool) -> Input:
    if as_text:
        return Input(argument, argument.encode(), "text/plain")
    if not argument:
        raise click.UsageError("an input is empty: name a file, - for standard input, or a text; is a variable unset?")
    if argument == "-":
        return Input("-", sys.stdin.buffer.read())
    file = Path(argument)
    kind = _kind_of(file)
    if kind == "file":
        return Input(argument, file=file)
    if kind == "folder":
        raise click.UsageError(f"{argument!r} is a folder; name its files, such as {argument.rstrip('/')}/*.jpg")
    # A misspelled file name must not be classified as a text.
    if not any(character.isspace() for character in argument) and (
        mimetypes.guess_type(argument)[0] or "/" in argument
    ):
        raise click.UsageError(f"no file named {argument!r}; if it is a text, say --text")
    return Input(argument, argument.encode(), "text/plain", is_no_file=True)


def _kind_of(file: Path) -> Literal["file", "folder", "nothing"]:
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError):  # not there, or a text: too long to be a name, or with a NUL
        return "nothing"
    return "folder" if stat.S_ISDIR(mode) else "file"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror}") from None


def guess_content_type(name: str, body: bytes) -> str:
    """The media type of *body*, from its first bytes, else from its file's name, else text or plain bytes."""
    guessed = sniff_image(body) or mimetypes.guess_type(name)[0]
    if guessed:
        return guessed
    try:
        body.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain"
