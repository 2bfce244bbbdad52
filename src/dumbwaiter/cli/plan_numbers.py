"""Numbers, times and lists of them on the command line of ``dumbwaiter plan``, each within its range."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from dumbwaiter.config import parse_duration

F = TypeVar("F", bound=Callable[..., Any])
_MOST_VALUES = 100
_TIME_IN_TEXT = re.compile(r"(?<![\w.])\d+(?:\.\d+)?\s*(?:ms|s|min|m|h|d)(?=b?(?!\w))")


class Number(click.FloatRange):
    """A range that has no place for what is no number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """*value* as a number of the range."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not in the range {self._describe_range()}.", param, ctx)
        return float(number)


def number_option(
    name: str, text: str, *, least: float, most: float, default: float | None = None, metavar: str = "N"
) -> Callable[[F], F]:
    """A number from *least* to *most*."""
    kind = Number(min=least, max=most)
    shown = default is not None
    return click.option(name, type=kind, default=default, show_default=shown, metavar=metavar, help=text)


def count_option(name: str, text: str, *, least: int, most: int, default: int | None = None) -> Callable[[F], F]:
    """A whole number from *least* to *most*."""
    kind = click.IntRange(min=least, max=most)
    return click.option(name, type=kind, default=default, show_default=default is not None, metavar="N", help=text)


def time_option(
    name: str, text: str, default: str | None = None, *, least: str = "0s", most: str = "1d"
) -> Callable[[F], F]:
    """A duration, or a number of seconds, from *least* to *most*."""

    def read(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
        if value is None:
            return None
        try:
            seconds = _seconds(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, parameter) from error
        if not parse_duration(least) <= seconds <= parse_duration(most):
            raise click.BadParameter(f"{value!r} is not in the range from {least} to {most}.", ctx, parameter)
        return seconds

    return click.option(name, callback=read, metavar="TIME", default=default, help=text, show_default=bool(default))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parse_duration(text)


def in_seconds(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """*value* with seconds in place of each time that has a unit: ``20ms+4ms*b`` is ``0.02+0.004*b``."""
    if value is None:
        return None
    return _TIME_IN_TEXT.sub(lambda found: f"{parse_duration(found[0]):.15g}", value)


def list_option(name: str, text: str, *, least: str, most: str) -> Callable[[F], F]:
    """``2,5,20``: each as a number or a duration, from *least* to *most*."""

    def read(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        try:
            numbers = tuple(parse_duration(part) for part in value.split(","))
        except ValueError:
            signed = [part for part in value.split(",") if part.strip().startswith(("-", "+"))]
            hint = f"; leave the sign of {signed[0].strip()!r} out, none is below 0" if signed else ""
            text = f"{value!r} is no list of numbers{hint or '; write them as 2,5,20'}"
            raise click.BadParameter(text, ctx, parameter) from None
        if not all(parse_duration(least) <= number <= parse_duration(most) for number in numbers):
            raise click.BadParameter(f"{value!r} has one that is not from {least} to {most}", ctx, parameter)
        if len(numbers) > _MOST_VALUES:
            raise click.BadParameter(f"{len(numbers)} values are more than {_MOST_VALUES}", ctx, parameter)
        return numbers

    return click.option(name, callback=read, metavar="LIST", help=text)


def share(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    """``1%`` or ``0.01``."""
    try:
        number = float(value.removesuffix("%")) / (100.0 if value.endswith("%") else 1.0)
    except ValueError:
        number = math.nan
    if not 0.0 <= number <= 1.0:
        raise click.BadParameter(f"{value!r} is no share; write it as 1% or 0.01", ctx, parameter)
    return number


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """All of *options*, in this order, as one decorator."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add
