"""What gpu_sharing.py has found, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import msgspec

from dumbwaiter.devices.contract import Device
from dumbwaiter.devices.cuda import list_gpus, started_nvml
from gpu_sharing_card import Copies, Size

GIB, GB = 2**30, 1e9
COMBINED_AT_LEAST, WAKE_AT_LEAST = 0.9, 0.8


class Together(msgspec.Struct, frozen=True, kw_only=True):
    """One model among others: rates are answers per second, the rest seconds and counts.

    *longest* and *p99* are from sending to the answer, so they hold the requests before it; *longest_pause* is between
    two answers of the model.
    """

    model: str
    alone: float
    rate: float
    sent: int
    answered: int
    p99: float
    longest: float
    longest_pause: float
    parks: int
    wakes: int

    @property
    def share(self) -> float:
        """Of its rate alone."""
        return self.rate / self.alone if self.alone else 0.0


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Models together; *out_of_memory*: how often a batch or a waking lacked memory."""

    name: str
    models: Sequence[Together]
    out_of_memory: int

    @property
    def combined(self) -> float:
        """The sum of the shares: time-sharing without any loss gives 1."""
        return sum(one.share for one in self.models)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of one run. *limit* in bytes."""

    device: str
    machine: str
    is_fake: bool
    limit: int
    seconds: float
    took: float
    sizes: Mapping[str, Size]
    copies: Copies
    cases: Sequence[Case]

    @property
    def is_clean(self) -> bool:
        """Nobody ran out of memory, and all were answered."""
        return all(
            not case.out_of_memory and all(one.answered == one.sent > 0 for one in case.models) for case in self.cases
        )


def described(device: Device) -> str:
    """Which card, with which driver and torch."""
    if device.kind == "fake":
        return f"a fake device of {device.capacity / GIB:g} GiB: no GPU, its models only sleep"
    nvml = started_nvml()
    model = next((gpu.model for gpu in list_gpus(nvml) if gpu.uuid in device.name), device.name)
    driver = nvml.nvmlSystemGetDriverVersion()
    driver = driver.decode() if isinstance(driver, bytes) else driver
    return f"{model}, {device.capacity / GIB:.1f} GiB, driver {driver}, torch {_torch_version()}"


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "none"


def this_machine() -> str:
    """As the other benchmarks say it."""
    from run import machine  # noqa: PLC0415 - only needed once, and it imports much

    return machine()


def report_as_markdown(report: Report) -> str:
    """The tables, with what they are of."""
    kind = "**Not a GPU.** Device" if report.is_fake else "Device"
    head = (
        f"{kind}: {report.device}. The models shared {report.limit / GIB:.2f} GiB, a neighbour held the rest, but for "
        "the reserve. "
        f"{report.seconds:g} s each together, half of it alone; {report.took:.0f} s in all. {report.machine}"
    )
    return "\n\n".join((head, _sizes(report), _cases(report), _targets(report)))


def _sizes(report: Report) -> str:
    head = "| model | weights | activation of a batch | of the limit |\n|---|---|---|---|"
    used = {one.model for case in report.cases for one in case.models}
    rows = [
        f"| {name} | {size.weights / GIB:.2f} GiB | {size.activation / GIB:.2f} GiB "
        f"| {(size.weights + size.activation) / report.limit:.2f} |"
        for name, size in report.sizes.items()
        if name in used
    ]
    return "\n".join([head, *rows])


def _cases(report: Report) -> str:
    columns = (
        "case", "model", "alone", "together", "of alone", "answered", "p99", "longest wait", "longest pause", "parks",
        "wakes",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for case in report.cases:
        for one in case.models:
            cells = (
                case.name, one.model, f"{one.alone:.1f}/s", f"{one.rate:.1f}/s", f"{one.share:.2f}",
                f"{one.answered} of {one.sent}", f"{one.p99:.2f} s", f"{one.longest:.2f} s",
                f"{one.longest_pause:.2f} s", str(one.parks), str(one.wakes),
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _targets(report: Report) -> str:
    copies = report.copies
    lines = ["| what | measured | target | met |", "|---|---|---|---|"]
    for case in report.cases:
        sent = sum(one.sent for one in case.models)
        answered = sum(one.answered for one in case.models)
        lines += [
            _row(f"{case.name}: out of memory", str(case.out_of_memory), "0", case.out_of_memory == 0),
            _row(f"{case.name}: not answered", str(sent - answered), "0", sent == answered),
            _row(
                f"{case.name}: combined rate, of time-sharing",
                f"{case.combined:.2f}",
                *_at_least(case.combined, COMBINED_AT_LEAST if case.name == "activations" else None),
            ),
        ]
    wake = copies.wake / copies.to_device
    return "\n".join(
        [
            *lines,
            _row("copy, pinned host memory to device", f"{copies.to_device / GB:.1f} GB/s", "none", None),
            _row("copy, device to pinned host memory", f"{copies.to_host / GB:.1f} GB/s", "none", None),
            _row("wake", f"{copies.wake / GB:.1f} GB/s, {wake:.2f} of the copy", *_at_least(wake, WAKE_AT_LEAST)),
            _row("park, the first time", f"{copies.first_park / GB:.1f} GB/s", "none", None),
            _row("park, nothing has changed since", f"{copies.park / GB:.1f} GB/s", "none", None),
        ]
    )


def _at_least(value: float, least: float | None) -> tuple[str, bool | None]:
    return ("none", None) if least is None else (f"≥ {least:g}", value >= least)


def _row(what: str, measured: str, target: str, met: bool | None) -> str:
    text = "\N{EN DASH}" if met is None else "yes" if met else "**no**"
    return f"| {what} | {measured} | {target} | {text} |"
