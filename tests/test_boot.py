"""What the run of the machine is called."""

from __future__ import annotations

import pytest

from dumbwaiter import boot
from dumbwaiter.boot import boot_id, this_boot


def test_a_boot_has_one_name():
    assert this_boot() == this_boot()
    assert this_boot().startswith(f"{boot_id()}/")
    assert len(this_boot()) > 30


def test_another_time_namespace_is_another_clock(tmp_path, monkeypatch):
    before = this_boot()
    (tmp_path / "time").touch()
    monkeypatch.setattr(boot, "_TIME_NAMESPACE", tmp_path / "time")
    assert this_boot() != before
    assert this_boot().endswith(f"/{(tmp_path / 'time').stat().st_ino}")


def test_a_kernel_without_time_namespaces_has_one_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(boot, "_TIME_NAMESPACE", tmp_path / "missing")
    assert this_boot() == f"{boot_id()}/"


def test_a_kernel_that_names_no_boot_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(boot, "_BOOT_ID", tmp_path / "missing")
    with pytest.raises(OSError, match="missing"):
        this_boot()
