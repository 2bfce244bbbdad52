"""Signs of life as a runtime gives them."""

from __future__ import annotations

import logging

import pytest

from dumbwaiter.cli.beating import beating
from dumbwaiter.heartbeat import look
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def test_each_state_is_told_at_once_and_nothing_is_left_of_them(tmp_path):
    file = tmp_path / "here" / "beat"
    async with beating(str(file)) as note:
        await eventually(file.exists)
        note("ready")
        await eventually(lambda: look(file).state == "ready", within=2.0)
    assert not file.exists()


async def test_where_no_sign_can_be_given_it_is_said_once_and_nothing_else_fails(tmp_path, caplog):
    (tmp_path / "no-folder").touch()
    async with beating(str(tmp_path / "no-folder" / "beat")) as note:
        await eventually(lambda: caplog.records)
        note("ready")
    assert [(one.levelno, "no sign of life" in one.message) for one in caplog.records] == [(logging.WARNING, True)]
