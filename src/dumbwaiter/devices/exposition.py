"""What is known of devices as metrics, in the text format that Prometheus and its node exporter read. Pure.

Source: the page "Exposition formats" of Prometheus' documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dumbwaiter.devices.inspection import DeviceReport, SeatReport


def _wait(seat: SeatReport) -> float | None:
    return None if seat.resident is None else seat.waits or 0.0


_DEVICE: Sequence[tuple[str, str, Callable[[DeviceReport], float | None]]] = (
    ("capacity_bytes", "all of its memory", lambda device: device.capacity),
    ("limit_bytes", "what can be given out in all", lambda device: device.limit),
    ("outside_bytes", "held by what has no seat", lambda device: device.outside),
    ("used_bytes", "in use by anybody, as the device tells", lambda device: device.used),
)
_SEAT: Sequence[tuple[str, str, Callable[[SeatReport], float | None]]] = (
    ("resident_bytes", "held by context and weights", lambda seat: seat.resident),
    ("granted_bytes", "what its batches may use now", lambda seat: seat.granted),
    ("wait_seconds", "how long it has waited for memory; 0 if it does not wait", _wait),
)


def as_metrics(reports: Iterable[DeviceReport]) -> str:
    """*reports* as gauges. What is not known is left out; of a ledger that cannot be read, ``readable`` is 0."""
    devices = list(reports)
    lines = _gauge("dumbwaiter_device_readable", "whether its ledger can be read")
    lines += [_sample("dumbwaiter_device_readable", float(one.error is None), device=one.name) for one in devices]
    for name, meaning, of_device in _DEVICE:
        lines += _gauge(metric := f"dumbwaiter_device_{name}", meaning)
        values = [(one, of_device(one)) for one in devices]
        lines += [_sample(metric, value, device=one.name) for one, value in values if value is not None]
    seats = [(one, seat) for one in devices for seat in one.seats]
    for name, meaning, of_seat in _SEAT:
        lines += _gauge(metric := f"dumbwaiter_seat_{name}", meaning)
        found = [(_labels(one, seat), of_seat(seat)) for one, seat in seats]
        lines += [_sample(metric, value, **labels) for labels, value in found if value is not None]
    lines += _gauge("dumbwaiter_seat_doing", "1 for what it does now")
    lines += [_sample("dumbwaiter_seat_doing", 1.0, **_labels(one, seat), doing=seat.doing) for one, seat in seats]
    return "\n".join(lines) + "\n"


def _labels(device: DeviceReport, seat: SeatReport) -> dict[str, str]:
    return {"device": device.name, "place": str(seat.place), "model": seat.model or ""}


def _gauge(name: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]


def _sample(name: str, value: float, **labels: str) -> str:
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {value:.15g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
