"""Adapters over a file that take back too little, or too much, of what a killed process held."""

from __future__ import annotations

import time

from breaking import Breaks
from msgspec.structs import replace

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.brokers.sqlite import SqliteBroker, settling
from dumbwaiter.errors import BrokerUnavailableError

breaks = Breaks()

TAKES_BACK = "test_what_a_killed_process_held_is_taken_back_at_once_with_its_count_raised"
SETTLED = "test_taking_back_what_is_settled_or_unknown_is_no_error"


@breaks("test_what_a_killed_process_held_is_ready_long_before_its_lock_ends")
class SaysThatItFreesWhatItKeeps(SqliteBroker):
    capabilities = replace(SqliteBroker.capabilities, killed_holder="freed")


@breaks("test_what_a_killed_process_held_is_kept_until_its_lock_ends")
class ClaimsWhatItSaysIsKept(SqliteBroker):
    capabilities = replace(SqliteBroker.capabilities, killed_holder="kept")


@breaks(TAKES_BACK)
class TakesNothingBack(SqliteBroker):
    async def _take_back(self, claims):
        return len(claims)


@breaks(TAKES_BACK)
class MakesNoClaims(SqliteBroker):
    def claim_of(self, delivery):
        return None


@breaks(TAKES_BACK)
class ForgetsToCount(SqliteBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await super().abandon(deliveries, delay=delay, counted=False)


@breaks("test_what_is_taken_back_wakes_a_receiver_that_waits")
class TakesASingleOneNotBack(SqliteBroker):
    async def _take_back(self, claims):
        return await super()._take_back(claims) if len(claims) > 1 else 0


@breaks("test_a_claim_whose_time_is_over_takes_nothing_from_the_next_holder")
class ClaimsForLongerThanItsLock(SqliteBroker):
    def claim_of(self, delivery):
        return replace(super().claim_of(delivery), held_until=time.monotonic() + 60.0)


@breaks("test_a_claim_whose_time_is_over_takes_nothing_from_the_next_holder")
class TakesBackWhateverHoldsTheMessage(SqliteBroker):
    """As by its number alone: whoever has it now."""

    async def take_back(self, claims: list[Claim]) -> int:
        seqs = [settling.parse_lock_token(claim.token)[0] for claim in claims]
        await self._run(_TakeAway(seqs))
        return 0


@breaks("test_a_claim_to_all_that_a_killed_process_held_takes_nothing_from_others")
class ClaimsWhatAllHold(SqliteBroker):
    async def take_back(self, claims):
        await self._run(settling.HandBack(0, 2**62))
        return len(claims)


@breaks("test_a_claim_to_all_that_a_killed_process_held_takes_nothing_from_others")
class CountsNothingOfAClaimToAll(SqliteBroker):
    async def _take_back(self, claims):
        await super()._take_back(claims)
        return 0


@breaks("test_renewing_makes_a_claim_that_lasts_longer")
class ClaimsForTheFirstLengthOfTheLock(SqliteBroker):
    def claim_of(self, delivery):
        self.first = getattr(self, "first", {})
        return self.first.setdefault(delivery.lock_token, super().claim_of(delivery))


@breaks(SETTLED)
class RaisesForWhatItDoesNotKnow(SqliteBroker):
    async def _take_back(self, claims):
        if (count := await super()._take_back(claims)) < len(claims):
            raise BrokerUnavailableError("not all of them are held")
        return count


@breaks(SETTLED)
class TakesBackAllOfTheQueue(SqliteBroker):
    async def take_back(self, claims):
        await self._run(settling.HandBack(0, 2**62))
        return len(claims)


@breaks("test_a_claim_from_before_an_abandon_takes_nothing_from_the_next_holder")
class FencesNoClaims(SqliteBroker):
    async def _take_back(self, claims):
        await self._run(_TakeAway([settling.parse_lock_token(claim.token)[0] for claim in claims]))
        return 0


class _TakeAway(settling.HandBack):
    """Makes messages ready, whoever holds them."""

    def __init__(self, seqs):
        super().__init__(0, 2**62)
        self.seqs = seqs

    def run(self, tx):
        for seq in self.seqs:
            tx.execute("UPDATE header SET state = 0, until = NULL, token = NULL WHERE seq = ?", (seq,))
            tx.made_ready[tx.one("SELECT queue FROM header WHERE seq = ?", (seq,))[0]] += 1
