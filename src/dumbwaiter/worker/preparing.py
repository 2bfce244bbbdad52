"""From a delivery to an input that can be given to the runner: or to the reason why it should not be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from dumbwaiter.blobs.claimcheck import check_out
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.errors import BadInputError, BlobDamagedError, BlobError, ForbiddenUrlError, OutboundError
from dumbwaiter.message import Failure, Timings
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.policies.retrying import Fault, most_deliveries
from dumbwaiter.worker.hand import Held
from dumbwaiter.worker.inputs import InputFetcher
from dumbwaiter.worker.looking import ResultFinder
from dumbwaiter.worker.settling import Outcome, answered, damaged, failure, put_off


class Preparer:
    """Looks at what was received for one model, and fetches what it only refers to. An Outcome means: do not run it."""

    def __init__(self, store: BlobStore, spec: ModelSpec, finder: ResultFinder, fetcher: InputFetcher) -> None:
        self._store = store
        self._spec = spec
        self._finder = finder
        self._fetcher = fetcher

    def past_saving(self, held: Held, now: float) -> Outcome | None:
        """Too late at *now* (Unix seconds), or delivered too often."""
        message, count = held.request, held.delivery.delivery_count
        if message.deadline is not None and now > message.deadline:
            late = now - message.deadline
            said = Failure(code="deadline-exceeded", message=f"received {late:.3f} s after its deadline")
            return self._failed(held, Fault.EXPIRED, said)
        if count > most_deliveries(self._spec.max_deliveries):
            said = Failure(
                code="delivery-limit",
                message=f"delivered {count} times without a verdict: whoever held it died, or lost its lock",
                attempts=count,
            )
            return self._failed(held, Fault.PERMANENT, said)
        return None

    def is_ready(self, held: Held) -> bool:
        """Whether it can go to the runner as it came: nobody can have cancelled it, and it is all here."""
        return not held.kept and self.is_all_here(held)

    def is_all_here(self, held: Held) -> bool:
        """Whether nothing needs to be fetched for it."""
        return held.delivery.message.data_ref is None and not self._fetcher.is_needed(held)

    async def look(self, held: Sequence[Held]) -> list[Outcome]:
        """Of those that are kept: whoever has an answer already (cancelled, say, or a double), or cannot be told."""
        kept = [one for one in held if one.kept]
        errors = await self._finder.find_all(kept)
        settled = []
        for one, error in zip(kept, errors, strict=True):
            if isinstance(error, BlobDamagedError):
                settled.append(damaged(one, error))
            elif error is not None:
                settled.append(put_off(one, error))
            elif one.stored is not None:
                settled.append(answered(one, one.stored))
        return settled

    async def check_out(self, held: Held) -> Outcome | None:
        """Get the body that its claim check stands for, if it has one."""
        if held.delivery.message.data_ref is None:
            return None
        try:
            held.body = (await check_out(self._store, held.delivery.message)).body
        except BadInputError as error:
            return self._failed(held, Fault.PERMANENT, Failure(code="bad-input", message=str(error)))
        except BlobError as error:
            unread = Failure(code="claim-unreadable", message=str(error), attempts=held.delivery.delivery_count)
            return self._failed(held, Fault.TRANSIENT, unread)
        return None

    async def fetch(self, held: Held) -> Outcome | None:
        """Get what URLs in its body stand for, before its deadline."""
        deadline = held.request.deadline
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.time())):
                await self._fetcher.fetch(held)
        except TimeoutError:
            late = Failure(code="deadline-exceeded", message="its input was not fetched before its deadline")
            return self._failed(held, Fault.EXPIRED, late)
        except (BadInputError, ForbiddenUrlError) as error:
            return self._failed(held, Fault.PERMANENT, Failure(code="bad-input", message=str(error)))
        except OutboundError as error:
            said = f"an input cannot be fetched from its URL: {error}"
            if not error.transient:
                return self._failed(held, Fault.PERMANENT, Failure(code="bad-input", message=said))
            attempts = held.delivery.delivery_count
            again = Failure(code="input-unreachable", message=said, attempts=attempts)
            return self._failed(held, Fault.TRANSIENT, again)
        return None

    def _failed(self, held: Held, fault: Fault, said: Failure) -> Outcome:
        return failure(held, fault, said, max_deliveries=self._spec.max_deliveries, timings=Timings())
