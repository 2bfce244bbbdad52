"""The Lua scripts: one call a verb and batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import ResponseError

from dumbwaiter.brokers.redis.connection import Argument, Pipeline
from dumbwaiter.brokers.redis.errors import is_no_script, of_reply

_LUA = files("dumbwaiter.brokers.redis") / "lua"


class Script:
    """A script by its file's *name*; those of a queue have the prelude before them."""

    def __init__(self, name: str, *, of_queue: bool = True) -> None:
        prelude = (_LUA / "prelude.lua").read_text(encoding="utf-8") if of_queue else ""
        self.text = prelude + (_LUA / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], *arguments: Argument) -> tuple[Argument, ...]:
        """The command that runs it, which a server that does not know it refuses."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    async def run(self, pipeline: Pipeline, where: str, keys: Sequence[str], *arguments: Argument) -> Any:
        """What it returns. Raises NoGroupError, BrokerUnavailableError."""
        try:
            try:
                return await pipeline.call(*self.command(keys, *arguments))
            except ResponseError as error:
                if not is_no_script(error):
                    raise
                return await pipeline.call("EVAL", self.text, len(keys), *keys, *arguments)
        except ResponseError as error:
            raise of_reply(error, where) from error


CREATE = Script("create")
SEND = Script("send")
RECEIVE = Script("receive")
COMPLETE = Script("complete")
ABANDON = Script("abandon")
DEAD_LETTER = Script("dead_letter")
RENEW = Script("renew")
STATS = Script("stats")
EXHUME = Script("exhume")
RELEASE = Script("release")
RING = Script("ring")
REPLY = Script("reply", of_queue=False)
