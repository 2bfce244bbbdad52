"""Devices as metrics: a text that Prometheus reads, with everything that is known and nothing that is not."""

from __future__ import annotations

import re

from dumbwaiter.devices.exposition import as_metrics
from dumbwaiter.devices.inspection import DeviceReport, SeatReport

SAMPLE = re.compile(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (-?[0-9.e+]+)')


def samples(text: str) -> dict[tuple[str, str], float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = [SAMPLE.fullmatch(line) for line in lines]
    assert all(found), lines
    return {(one[1], one[2]): float(one[3]) for one in found if one is not None}


def test_each_device_and_seat_is_told_once_for_each_of_its_figures() -> None:
    seats = [
        SeatReport(place=0, doing="running", model="big", weight=1.0, resident=3, granted=2, evictable=3),
        SeatReport(place=2, doing="parked", model="small", weight=1.0, resident=1, granted=0, evictable=0, waits=1.5),
    ]
    text = as_metrics([DeviceReport(name="gpu", capacity=10, limit=9, outside=0, seats=seats, first=2)])
    found = samples(text)
    assert found["dumbwaiter_device_capacity_bytes", 'device="gpu"'] == 10
    assert found["dumbwaiter_device_outside_bytes", 'device="gpu"'] == 0
    assert found["dumbwaiter_seat_resident_bytes", 'device="gpu",place="0",model="big"'] == 3
    assert found["dumbwaiter_seat_wait_seconds", 'device="gpu",place="0",model="big"'] == 0
    assert found["dumbwaiter_seat_wait_seconds", 'device="gpu",place="2",model="small"'] == 1.5
    assert found["dumbwaiter_seat_doing", 'device="gpu",place="2",model="small",doing="parked"'] == 1
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_what_is_not_known_is_left_out_rather_than_nought() -> None:
    seat = SeatReport(place=1, doing="unreadable", reason="damaged")
    found = samples(as_metrics([DeviceReport(name="gpu", capacity=10, limit=9, seats=[seat])]))
    assert ("dumbwaiter_device_used_bytes", 'device="gpu"') not in found
    for name in ("resident_bytes", "granted_bytes", "wait_seconds"):
        assert (f"dumbwaiter_seat_{name}", 'device="gpu",place="1",model=""') not in found


def test_a_ledger_that_cannot_be_read_says_so() -> None:
    found = samples(as_metrics([DeviceReport(name="gpu", error="torn")]))
    assert found["dumbwaiter_device_readable", 'device="gpu"'] == 0


def test_odd_names_stay_one_label() -> None:
    seat = SeatReport(place=0, doing="idle", model='a"b\\c\nd', resident=1, granted=0)
    found = samples(as_metrics([DeviceReport(name="gpu", seats=[seat])]))
    assert ("dumbwaiter_seat_resident_bytes", 'device="gpu",place="0",model="a\\"b\\\\c\\nd"') in found


def test_a_great_number_of_bytes_keeps_all_its_digits() -> None:
    found = samples(as_metrics([DeviceReport(name="gpu", capacity=85_899_345_921)]))
    assert found["dumbwaiter_device_capacity_bytes", 'device="gpu"'] == 85_899_345_921
