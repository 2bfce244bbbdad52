"""Every rule of the suite can fail: adapters that each break one promise are caught by the rule that names it."""

from __future__ import annotations

import secrets

import broken_dead_letters
import broken_foreign
import broken_locks
import broken_looks
import broken_messages
import broken_positions
import broken_served
import broken_sqlite
import broken_takeover
import pytest
from served_broker import TinyServer, TinyServerHarness

from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.testing import BrokerConformance, Harness

pytestmark = pytest.mark.anyio

IN_MEMORY = [
    *broken_messages.breaks.adapters,
    *broken_locks.breaks.adapters,
    *broken_dead_letters.breaks.adapters,
    *broken_looks.breaks.adapters,
    *broken_positions.breaks.adapters,
]
ON_A_FILE = [*broken_sqlite.breaks.adapters, *broken_takeover.breaks.adapters]
SERVED = broken_served.breaks.adapters
FOREIGN = broken_foreign.breaks.adapters

#: Short, because a broken adapter makes the suite wait for what never comes. Too short can only fail a sound one.
IMPATIENT = {"lock_duration": 0.15, "slack": 0.4, "quiet": 0.08, "stats_age": 0.1}
PATIENT = {"lock_duration": 0.15, "slack": 3.0, "quiet": 0.08, "stats_age": 0.1}

#: How a rule fails: its own assertion, its own patience, or the error that it asked for coming out otherwise.
FAILURES = (AssertionError, TimeoutError, DumbwaiterError, ConnectionError, pytest.fail.Exception)


def of_each(adapters):
    """The test's arguments, named after the fault."""
    return pytest.mark.parametrize(
        ("adapter", "rule", "keeps"), [pytest.param(*broken, id=broken[0].__name__) for broken in adapters]
    )


async def check(rule: str, harness: Harness) -> None:
    """Run one rule. A skipped one has not been checked, and fails."""
    try:
        await getattr(BrokerConformance(), rule)(harness)
    except pytest.skip.Exception as skipped:
        raise RuntimeError(f"{rule} was skipped: {skipped}") from None


@of_each(IN_MEMORY)
async def test_a_broken_adapter_in_memory_fails_the_rule_that_names_its_fault(adapter, rule, keeps):
    await check(keeps, Harness(f"memory://{secrets.token_hex(8)}", adapter=adapter, **PATIENT))
    with pytest.raises(FAILURES):
        await check(rule, Harness(f"memory://{secrets.token_hex(8)}", adapter=adapter, **IMPATIENT))


@of_each(ON_A_FILE)
async def test_a_broken_adapter_on_a_file_fails_the_rule_that_names_its_fault(tmp_path, adapter, rule, keeps):
    await check(keeps, Harness(f"sqlite://{tmp_path}/kept.db", adapter=adapter, **PATIENT))
    with pytest.raises(FAILURES):
        await check(rule, Harness(f"sqlite://{tmp_path}/broken.db", adapter=adapter, **IMPATIENT))


@of_each(FOREIGN)
async def test_a_broken_adapter_fails_the_rule_about_what_others_wrote(adapter, rule, keeps):
    for_foreign = broken_foreign.ForeignHarness
    await check(keeps, for_foreign(f"memory://{secrets.token_hex(8)}", adapter=adapter, **PATIENT))
    with pytest.raises(FAILURES):
        await check(rule, for_foreign(f"memory://{secrets.token_hex(8)}", adapter=adapter, **IMPATIENT))


@pytest.mark.parametrize("rule", [broken_foreign.READ, broken_foreign.LARGEST, broken_foreign.MOST])
async def test_a_sound_adapter_keeps_the_rules_about_what_others_wrote(rule):
    sound = broken_foreign.ReadsEnvelopes
    await check(rule, broken_foreign.ForeignHarness(f"memory://{secrets.token_hex(8)}", adapter=sound, **PATIENT))


@of_each(SERVED)
async def test_a_broken_adapter_of_a_server_fails_the_rule_that_names_its_fault(server, adapter, rule, keeps):
    await check(keeps, TinyServerHarness(server, adapter, **PATIENT))
    with pytest.raises(FAILURES):
        await check(rule, TinyServerHarness(server, adapter, **IMPATIENT))


async def test_a_server_that_loses_what_it_confirmed_fails_the_rule_of_durability():
    forgetful = TinyServer(durable=False)
    await forgetful.start()
    with pytest.raises(DumbwaiterError, match="no queue named"):
        await check("test_confirmed_messages_survive_kill_9_and_restart", TinyServerHarness(forgetful, **IMPATIENT))
    await forgetful.stop()


def test_every_rule_is_broken_by_an_adapter():
    """A rule that nothing here can fail may be one that cannot fail at all."""
    rules = {name for name in dir(BrokerConformance) if name.startswith("test_")}
    assert rules == {rule for _, rule, _ in (*IN_MEMORY, *ON_A_FILE, *SERVED, *FOREIGN)}


@pytest.fixture
async def server():
    server = TinyServer()
    await server.start()
    yield server
    await server.stop()
