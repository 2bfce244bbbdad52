"""A blob store that takes its time."""

from __future__ import annotations

import asyncio


class SlowStore:
    """*store*, whose *verbs* go on only once *gate* is set; *begun* is how many of them have begun."""

    def __init__(self, store, *verbs):
        self.gate = asyncio.Event()
        self.begun = 0
        self._store = store
        self._verbs = verbs

    def __getattr__(self, name):
        verb = getattr(self._store, name)
        if name not in self._verbs:
            return verb

        async def slow(*arguments, **facts):
            self.begun += 1
            await self.gate.wait()
            return await verb(*arguments, **facts)

        return slow
