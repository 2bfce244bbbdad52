"""Options that several commands share, and the settings that they and the command's own flags amount to."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dumbwaiter.config import Settings

F = TypeVar("F", bound=Callable[..., Any])
_FLAGS = "dumbwaiter.flags"
_CONFIG = "dumbwaiter.config"


def keep_layout(text: str | None) -> str | None:
    """Mark the paragraphs that hold indented lines (examples, tables), so that click does not refill them."""
    if text is None:
        return None
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"\b\n{part}" if "\n  " in f"\n{part}" else part for part in paragraphs)


class Command(click.Command):
    """A command whose help keeps its examples as they are written, and to which its errors of usage point."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help = keep_layout(self.help)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What *args* leave over. Raises click.UsageError."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            # click does not say where an option was left without its value.
            error.ctx = error.ctx or ctx
            raise


class Group(click.Group):
    """A group of commands whose help keeps its examples as they are written.

    *synonyms* are words that people try for a command, and the command's name: whoever says one is told the other.
    """

    def __init__(self, *args: Any, synonyms: Mapping[str, str] | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help = keep_layout(self.help)
        self._synonyms = synonyms or {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands in the order in which they stand in the source: as one would use them."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """What *args* call. Raises click.UsageError, with the name that was probably meant."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            from dumbwaiter.spelling import did_you_mean  # noqa: PLC0415 - only on the way to an error

            meant = self._synonyms.get(args[0])
            hint = f"; did you mean {meant!r}?" if meant else did_you_mean(args[0], names)
            raise click.UsageError(f"no command named {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """A group whose commands are files of their own, imported when they are asked for.

    *lazy*: command -> ``module:attribute``, and its line in --help, said there so that --help imports nothing.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._lazy.items()])


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def setting(name: str, *keys: str, text: str, metavar: str = "TEXT") -> Callable[[F], F]:
    """A flag that sets ``keys`` (``--port`` sets gateway.port); read it with current_settings()."""

    def remember(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta.setdefault(_FLAGS, []).append((name, keys, value))

    return click.option(name, callback=remember, expose_value=False, metavar=metavar, help=text)


def switch(name: str, *keys: str, text: str) -> Callable[[F], F]:
    """A flag without a value that sets ``keys`` to true; read it with current_settings()."""

    def remember(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            ctx.meta.setdefault(_FLAGS, []).append((name, keys, "true"))

    return click.option(name, is_flag=True, callback=remember, expose_value=False, help=text)


def config_option(command: F) -> F:
    """--config alone; current_settings() reads what it names."""

    def remember(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        ctx.meta[_CONFIG] = value

    return click.option(
        "--config",
        callback=remember,
        expose_value=False,
        metavar="FILE",
        help="Settings file instead of ./dumbwaiter.toml.",
    )(command)


def settings_options(command: F) -> F:
    """--config, --broker, --blobs, --log-level and --log-format."""
    for option in (
        setting("--log-format", "log_format", text="How logs look: auto, human or json.", metavar="FORMAT"),
        setting("--log-level", "log_level", text="Least level to log: debug, info, warning or error.", metavar="LEVEL"),
        setting("--blobs", "blobs", text="Where large bodies and results lie: file:FOLDER, s3://…", metavar="URL"),
        setting(
            "--broker",
            "broker",
            text="Where requests wait: sqlite:FILE, redis://HOST, amqp://, nats://, kafka:// … (docs/brokers.md).",
            metavar="URL",
        ),
        config_option,
    ):
        command = option(command)
    return command


def given_flags() -> list[tuple[str, tuple[str, ...], str]]:
    """The settings flags of this command line: name, keys, value as typed."""
    return list(click.get_current_context().meta.get(_FLAGS, []))


def given_config() -> str | None:
    """What --config named, if anything."""
    path: str | None = click.get_current_context().meta.get(_CONFIG)
    return path


def current_settings(more: Iterable[tuple[str, tuple[str, ...], str]] = ()) -> Settings:
    """File, variables and this command line's flags, and *more* flags from its arguments. Raises ConfigError."""
    from dumbwaiter.config import Flag, load_settings  # noqa: PLC0415 - keeps `dumbwaiter version` light

    flags = [Flag(name, keys, value) for name, keys, value in (*given_flags(), *more)]
    return load_settings(given_config(), flags=flags)
