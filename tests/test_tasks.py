"""Tasks end when they are told to, and what is done over and over is done after a pause."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from dumbwaiter import tasks

pytestmark = pytest.mark.anyio


async def test_ending_waits_until_the_tasks_are_over_and_passes_over_none():
    over = []

    async def run():
        try:
            await asyncio.Event().wait()
        finally:
            over.append("over")
            raise RuntimeError("theirs to tell")

    running = [asyncio.create_task(run()) for _ in range(2)]
    await asyncio.sleep(0)
    await tasks.end([*running, None])
    assert over == ["over", "over"]


async def test_every_does_its_work_after_each_pause_until_it_fails(monkeypatch):
    said = []

    async def slept(seconds):
        said.append(seconds)
        await asyncio.sleep(0)

    async def work():
        said.append("work")
        if said.count("work") == 3:
            raise RuntimeError("enough")

    monkeypatch.setattr(tasks, "asyncio", SimpleNamespace(sleep=slept))
    with pytest.raises(RuntimeError, match="enough"):
        await tasks.every(7.0, work)
    assert said == [7.0, "work"] * 3
