"""``dumbwaiter devices``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from dumbwaiter.cli.options import Command, current_settings, json_option, settings_options
from dumbwaiter.cli.output import duration, print_json, print_table
from dumbwaiter.config import ledgers_folder
from dumbwaiter.devices.exposition import as_metrics
from dumbwaiter.devices.inspection import DeviceReport, SeatReport, inspect_ledger, ledgers_at
from dumbwaiter.devices.opening import open_device
from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.policies.admission import Device as Shared
from dumbwaiter.policies.admission.wording import size_text
from dumbwaiter.printable import printable

_COLUMNS = ("place", "model", "doing", "resident", "granted", "evictable", "weight", "waits")


@click.command(cls=Command)
@click.option(
    "--device",
    "addresses",
    multiple=True,
    metavar="DEVICE",
    help="Say how much of this device is in use, by whomever; once for each (default: the first GPU).",
)
@click.option(
    "--ledger",
    metavar="PATH",
    help="A ledger, or a folder of them, instead of the one in the settings.",
)
@click.option("--metrics", is_flag=True, help="Print it as metrics, in the text format of Prometheus.")
@json_option
@settings_options
def devices(addresses: tuple[str, ...], ledger: str | None, metrics: bool, as_json: bool) -> int:
    """Show whose models share the memory of this machine's devices, and who waits for it, and why.

      doing      idle, running, polling (looks into its queue), loading, probing (is measured), parking, parked,
                 dead (its memory is not free yet) or unreadable
      resident   what context and weights hold
      granted    what its batches may use now
      evictable  what would come back if it were parked
      weight     the model's share against that of others
      waits      since when it waits for memory

    It is read from the ledgers of the devices; no device is opened but those of --device, and no GPU's context is made.

    Examples:
      dumbwaiter devices
      dumbwaiter devices --json --device cuda:1
      dumbwaiter devices --ledger /var/run/ledgers
      dumbwaiter devices --metrics > /var/lib/node_exporter/dumbwaiter.prom

    """
    folder = Path(ledger).absolute() if ledger else ledgers_folder(current_settings())
    reports = _with_use(_reports(folder), addresses)
    if as_json and metrics:
        raise click.UsageError("--json and --metrics are two forms; choose one")
    if as_json:
        print_json({"devices": reports})
    elif metrics:
        click.echo(as_metrics(reports), nl=False)
    elif not reports:
        click.echo(f"no worker has shared a device on this machine yet; looked in {printable(str(folder))}")
    else:
        for report in reports:
            _print(report)
    return 1 if any(report.error for report in reports) else 0


def _reports(folder: Path) -> list[DeviceReport]:
    try:
        return [inspect_ledger(path) for path in ledgers_at(folder)]
    except OSError as error:
        raise click.ClickException(
            f"cannot look for ledgers in {folder}: {error.strerror}; run it as the user of the workers"
        ) from error


def _with_use(reports: Sequence[DeviceReport], addresses: Sequence[str]) -> list[DeviceReport]:
    """*reports*, with how much is in use of the devices at *addresses*; those without a ledger come last.

    Without *addresses* the default device is asked, if it can be: nobody has asked for it.
    """
    uses = [_use_of(address) for address in addresses]
    if reports and not addresses:
        with contextlib.suppress(DumbwaiterError):
            uses = [_use_of("auto")]
    found = list(reports)
    for use in uses:
        places = [place for place, one in enumerate(found) if (one.name, one.capacity) == (use.name, use.capacity)]
        for place in places:
            found[place] = msgspec.structs.replace(found[place], used=use.used)
        if addresses and not places:
            found.append(use)
    return found


def _use_of(address: str) -> DeviceReport:
    """The device at *address*, as if nobody shared it. Raises ConfigError, MissingExtraError, DeviceError."""
    with contextlib.closing(open_device(address)) as device:
        limit = max(0, Shared(device.name, device.capacity).limit)
        return DeviceReport(name=device.name, capacity=device.capacity, limit=limit, used=device.used())


def _print(report: DeviceReport) -> None:
    click.echo(printable(_heading(report)))
    if report.error is not None:
        return
    seats = report.seats
    if not seats:
        click.echo("  nobody shares it now")
        return
    print_table(_COLUMNS, map(_row, seats), right=("place", *_COLUMNS[3:]))
    for seat in seats:
        if seat.reason:
            click.echo(f"  place {seat.place}: {printable(seat.reason)}")
    if report.first is not None:
        when = "when cannot be told" if report.starts_in is None else f"expected in {duration(report.starts_in)}"
        click.echo(f"  next: place {report.first}, {when}")


def _heading(report: DeviceReport) -> str:
    if report.error is not None or report.capacity is None or report.limit is None:
        return f"{report.name}: {report.error}"
    held = sum((seat.resident or 0) + (seat.granted or 0) for seat in report.seats)
    facts = [size_text(report.capacity), f"{size_text(held)} of {size_text(report.limit)} given out"]
    if report.outside:
        facts.append(f"{size_text(report.outside)} held by others")
    if report.used is not None:
        facts.append(f"{size_text(report.used)} in use")
    return f"{report.name}: {', '.join(facts)}"


def _row(seat: SeatReport) -> tuple[object, ...]:
    sizes = ("?" if size is None else size_text(size) for size in (seat.resident, seat.granted, seat.evictable))
    weight = "?" if seat.weight is None else f"{seat.weight:g}"
    return (
        seat.place,
        seat.model or "?",
        seat.doing,
        *sizes,
        weight,
        "-" if seat.waits is None else duration(seat.waits),
    )
