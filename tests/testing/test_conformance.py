"""The suite is whole: each rule of the contract has its tests, and users can run it with what the extra installs."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap

import pytest
from msgspec.structs import replace
from served_broker import ServedBroker, TinyServer, TinyServerHarness

from dumbwaiter.brokers.contract import Broker
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BrokerUnavailableError, ConfigError
from dumbwaiter.message import Message
from dumbwaiter.testing import BrokerConformance, Harness, conformance

#: What every broker promises, and the tests that hold it to that. Brackets: only where its capabilities say so.
RULES = {
    "a message arrives unchanged, with a body that is not UTF-8 and all attributes": {
        "test_a_message_arrives_unchanged_with_a_non_utf8_body_and_all_attributes",
        "test_a_message_without_attributes_arrives_unchanged_with_an_empty_body",
        "test_any_content_type_arrives_unchanged_and_harms_no_other_message_of_its_batch",
    },
    "an empty batch is no error": {"test_an_empty_batch_is_a_no_op_for_every_verb"},
    "a batch arrives whole": {
        "test_a_batch_of_messages_arrives_whole_and_once",
        "test_a_send_of_several_hundred_messages_arrives_whole",
    },
    "a locked message is hidden from competitors": {"test_a_locked_message_is_hidden_from_competitors"},
    "each message goes to exactly one of several consumers": {
        "test_each_message_goes_to_exactly_one_of_several_consumers",
    },
    "complete removes": {
        "test_a_completed_message_never_comes_back",
        "test_completing_one_message_leaves_the_others_of_its_batch_locked",
        "test_deliveries_of_several_queues_can_be_settled_in_one_call",
    },
    "completing twice is no error": {"test_completing_twice_is_no_error"},
    "abandon returns the message with its delivery count + 1": {
        "test_an_abandoned_message_returns_at_once_with_its_count_raised",
        "test_an_abandoned_message_wakes_a_receiver_that_waits",
    },
    "[abandon with a delay, or uncounted]": {
        "test_a_message_abandoned_with_a_delay_returns_after_it",
        "test_a_message_abandoned_for_long_stays_away",
        "test_an_uncounted_abandon_takes_the_count_back",
        "test_an_uncounted_abandon_with_a_delay_takes_the_count_back_too",
    },
    "dead_letter moves the message with reason and detail": {
        "test_a_dead_lettered_message_moves_with_its_reason_and_detail",
        "test_a_stale_delivery_of_a_message_that_is_dead_by_now_leaves_the_dead_letter_alone",
    },
    "what cannot be read of others' messages is dead-lettered, and costs no other message": {
        "test_a_message_that_cannot_be_read_is_dead_lettered_and_costs_no_other",
        "test_one_of_the_largest_size_that_cannot_be_read_costs_no_other",
        "test_one_with_the_most_headers_that_cannot_be_read_costs_no_other",
    },
    "dead letters can be read, counted, redriven and purged": {
        "test_dead_letters_can_be_read_again_and_counted",
        "test_the_oldest_dead_letters_come_first",
        "test_dead_letters_can_be_read_page_by_page",
        "test_a_dead_letter_can_be_asked_for_until_it_is_redriven_or_purged",
        "test_redriven_dead_letters_come_back_with_a_fresh_count",
        "test_redriving_by_key_moves_only_those",
        "test_redriving_or_purging_an_empty_list_of_keys_touches_nothing",
        "test_a_redriven_dead_letter_wakes_a_receiver_that_waits",
        "test_purging_deletes_dead_letters_only",
        "test_a_purged_message_id_may_be_sent_anew",
    },
    "a lock that runs out frees the message, also while a receiver waits": {
        "test_a_lock_that_runs_out_frees_the_message_with_its_count_raised",
        "test_a_lock_that_runs_out_wakes_a_receiver_that_waits_already",
        "test_a_receivers_close_hands_back_at_once_what_it_held",
        "test_what_a_closing_broker_hands_back_was_not_counted_as_a_delivery",
    },
    "[what a killed process held is ready at once, or can be taken back, and nothing else with it]": {
        "test_what_a_killed_process_held_is_kept_until_its_lock_ends",
        "test_what_a_killed_process_held_is_ready_long_before_its_lock_ends",
        "test_what_a_killed_process_held_is_taken_back_at_once_with_its_count_raised",
        "test_what_is_taken_back_wakes_a_receiver_that_waits",
        "test_a_claim_whose_time_is_over_takes_nothing_from_the_next_holder",
        "test_a_claim_to_all_that_a_killed_process_held_takes_nothing_from_others",
        "test_renewing_makes_a_claim_that_lasts_longer",
        "test_taking_back_what_is_settled_or_unknown_is_no_error",
        "test_a_claim_from_before_an_abandon_takes_nothing_from_the_next_holder",
    },
    "renewing keeps the lock and its token": {
        "test_renewing_keeps_the_lock_beyond_its_first_length",
        "test_renewing_keeps_the_lock_token",
    },
    "renewing what ran out raises LockLostError": {
        "test_renewing_after_the_lock_ran_out_raises_lock_lost",
        "test_renewing_several_renews_those_that_are_still_held_and_names_the_lost",
    },
    "a stale token does not settle the next holder's copy": {
        "test_another_broker_object_settles_nothing_of_what_it_did_not_receive",
        "test_a_stale_token_does_not_complete_the_next_holders_copy",
        "test_a_stale_token_does_not_abandon_the_next_holders_copy",
        "test_a_stale_token_does_not_dead_letter_the_next_holders_copy",
        "test_a_stale_token_does_not_renew_the_next_holders_copy",
        "test_a_token_is_stale_for_its_own_holder_too_after_an_abandon",
        "test_a_token_from_before_an_uncounted_abandon_is_stale",
        "test_a_token_from_before_a_redrive_settles_neither_the_redriven_message_nor_its_next_delivery",
        "test_a_stale_delivery_does_not_keep_the_others_of_its_batch_from_being_completed",
        "test_a_stale_delivery_does_not_keep_the_others_of_its_batch_from_being_abandoned",
        "test_a_stale_delivery_does_not_keep_the_others_of_its_batch_from_being_dead_lettered",
    },
    "receive returns early with what there is, and never more than asked for": {
        "test_receive_returns_early_with_what_there_is",
        "test_receive_never_returns_more_than_was_asked_for",
        "test_a_message_wakes_a_receiver_that_waits",
        "test_a_batch_wakes_as_many_receivers_as_it_can_serve",
    },
    "receive waits at most max_wait": {
        "test_receive_waits_at_most_max_wait_and_no_less",
        "test_who_asks_for_no_message_gets_none_at_once_and_nothing_is_looked_at",
        "test_receive_without_a_wait_returns_at_once",
    },
    "a cancelled receive loses nothing and locks nothing": {
        "test_a_cancelled_receive_locks_nothing_that_comes_later",
        "test_a_receive_cancelled_while_messages_come_loses_none",
        "test_a_receiver_cancelled_while_messages_come_leaves_them_to_the_next_that_waits",
    },
    "every verb may be called from many tasks at once": {
        "test_every_verb_may_be_called_from_many_tasks_at_once",
        "test_a_receive_that_waits_holds_up_no_other_verb_of_its_broker",
    },
    "an unknown queue raises, naming it": {"test_an_unknown_queue_raises_naming_it"},
    "creating a queue twice is no error": {
        "test_creating_a_queue_twice_keeps_what_it_holds",
        "test_queues_lists_all_names_in_order",
    },
    "the names of queues have one grammar for all brokers": {
        "test_queue_names_may_hold_dots_dashes_and_capitals",
        "test_a_queue_name_may_be_as_long_as_the_contract_says",
        "test_a_name_that_not_every_broker_takes_is_refused_for_a_queue",
    },
    "stats count ready, locked, delayed and dead, and tell the oldest age, or that they cannot": {
        "test_an_age_that_a_broker_cannot_tell_is_none_and_no_guess",
        "test_stats_count_what_is_ready_locked_delayed_and_dead",
        "test_stats_tell_the_age_of_the_oldest_ready_message",
    },
    "[a position counts what is served before, and is none where nothing waits]": {
        "test_a_position_counts_the_messages_that_are_served_before",
        "test_a_position_follows_priority_and_then_the_order_of_sending",
        "test_a_message_that_does_not_wait_has_no_position",
        "test_a_message_that_comes_back_has_a_position_again",
    },
    "a check tells whether the broker works": {
        "test_a_check_of_a_broker_that_works_returns_and_changes_nothing",
    },
    "an examination says what the broker guarantees": {
        "test_an_examination_says_what_the_broker_guarantees_and_changes_nothing",
    },
    "every verb raises while the broker is down": {
        "test_every_verb_raises_while_the_server_is_down",
        "test_a_receive_that_waits_while_the_server_dies_raises_or_gets_what_comes_later",
    },
    "[a closed broker leaves nothing open]": {"test_brokers_that_were_closed_leave_no_descriptor_open"},
    "a closed broker raises": {
        "test_every_verb_of_a_closed_broker_raises",
        "test_closing_twice_is_no_error",
        "test_a_receiver_that_waits_learns_that_its_broker_was_closed",
        "test_a_reader_that_waits_learns_that_its_inbox_was_closed",
        "test_a_reader_that_waits_learns_that_its_broker_was_closed",
        "test_closing_one_broker_leaves_the_others_of_its_server_alone",
    },
    "two queues do not mix": {
        "test_two_queues_do_not_mix",
        "test_the_same_message_id_may_travel_in_two_queues",
    },
    "[order]": {
        "test_messages_of_equal_priority_come_in_the_order_in_which_they_were_sent",
        "test_an_abandoned_message_comes_back_at_its_old_place",
    },
    "[priority]": {
        "test_a_larger_priority_is_served_first_whenever_it_was_sent",
        "test_priorities_that_are_lanes_serve_the_high_ones_mostly_and_the_low_ones_too",
        "test_an_abandoned_message_is_served_by_its_priority",
        "test_a_redriven_dead_letter_is_served_by_its_priority",
    },
    "[send with a delay]": {
        "test_a_message_sent_with_a_delay_comes_after_it",
        "test_a_delay_that_ends_wakes_a_waiting_receiver",
    },
    "[a delay that the product cannot keep is none]": {"test_a_delay_that_the_product_cannot_keep_is_none"},
    "[what is no delay is none]": {"test_handing_back_never_fails_for_its_delay"},
    "[deduplication]": {
        "test_a_second_send_of_the_same_message_id_is_dropped",
        "test_a_second_send_of_an_id_that_is_dead_by_now_is_dropped",
        "test_an_id_that_comes_twice_in_one_send_is_one_message",
    },
    "[durable: survives kill -9 and restart]": {
        "test_confirmed_messages_survive_kill_9_and_restart",
        "test_messages_that_were_locked_when_their_server_died_come_back",
        "test_a_server_that_is_killed_among_a_thousand_messages_costs_none_of_them",
    },
    "[several processes: what a killed one held comes back]": {"test_messages_locked_by_a_killed_process_come_back"},
    "reconnects by itself after the server restarts": {
        "test_what_could_not_be_settled_while_the_server_was_down_is_settled_later_by_the_same_call",
        "test_a_broker_reconnects_by_itself_after_its_server_restarts",
    },
    "an inbox makes the round trip with its correlation id": {
        "test_a_reply_reaches_the_inbox_that_asked_with_its_correlation_id",
        "test_a_reply_arrives_unchanged_with_all_attributes",
        "test_a_reply_of_1_mib_arrives_unchanged",
        "test_a_reply_wakes_a_reader_that_waits",
        "test_a_reply_is_read_once_and_an_empty_inbox_waits_at_most_max_wait",
        "test_two_inboxes_do_not_mix",
        "test_many_replies_from_several_workers_all_arrive",
        "test_an_inbox_can_be_iterated",
        "test_a_cancelled_read_of_an_inbox_loses_no_reply",
        "test_a_reply_to_a_closed_inbox_raises_inbox_gone",
        "test_a_reply_to_the_inbox_of_a_closed_broker_raises_inbox_gone",
    },
    "1 MiB fits, and over the limit raises MessageTooLargeError": {
        "test_a_body_of_1_mib_arrives_unchanged",
        "test_a_message_over_the_limit_raises_and_nothing_of_its_batch_is_sent",
    },
}


def test_every_promise_has_its_tests_and_every_test_belongs_to_one_promise():
    tests = [name for names in RULES.values() for name in names]
    assert sorted(tests) == sorted(name for name in dir(BrokerConformance) if name.startswith("test_"))


# --- as a user has it ---

ADAPTER = """
from dumbwaiter.brokers.sqlite import SqliteBroker


class MyBroker(SqliteBroker):
    def __init__(self, url, *, lock_duration=30.0):
        super().__init__(url.replace("mybroker:", "sqlite:"), lock_duration=lock_duration)
"""

ONE_FAULT = """
    async def complete(self, deliveries):
        pass
"""


@pytest.fixture
def project(tmp_path):
    """The example of the suite's own documentation, beside an adapter that open_broker() does not know."""
    _, example = inspect.getdoc(conformance).split("how to reach the broker:\n\n")
    example = example[: example.index("\n\nFor a product")]
    (tmp_path / "test_my_broker.py").write_text(textwrap.dedent(example))
    (tmp_path / "my_broker.py").write_text(ADAPTER)
    return tmp_path


def run_pytest(folder, *arguments):
    """With the plugins of the extra [testing] only, and none of the libraries that this project tests itself with."""
    forbidden = ["hypothesis", "pytest_timeout", "pytest_cov", "httpx", "psutil"]
    (folder / "conftest.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({forbidden}))\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "anyio", "-p", "no:cacheprovider", "-q", "-ra", *arguments],
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_the_documented_example_works_with_pytest_and_anyio_alone(project):
    ran = run_pytest(project, "-k", "arrives or killed or kill_9 or server or empty_batch")
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout
    assert "failed" not in ran.stdout
    assert "RULE NOT CHECKED: the harness of mybroker:" in ran.stdout


def test_a_failing_rule_shows_the_values_that_it_compared(project):
    (project / "my_broker.py").write_text(ADAPTER + ONE_FAULT)
    ran = run_pytest(project, "-k", "completing_one_message or arrives_unchanged_with_an")
    assert ran.returncode == 1, ran.stdout
    assert "1 failed, 1 passed" in ran.stdout
    assert "FAILED test_my_broker.py::TestMyBroker::test_completing_one_message_leaves_the_others" in ran.stdout
    assert "stats say {'ready': 0, 'locked': 3, 'delayed': 0, 'dead': 0}, expected" in ran.stdout


def test_a_harness_of_an_unknown_scheme_asks_for_the_adapter():
    with pytest.raises(ConfigError, match="adapter="):
        Harness("mybroker://somewhere")


@pytest.mark.anyio
async def test_what_a_broker_can_do_is_read_from_one_that_is_open():
    """The class knows what is usual; only the server knows what it can."""

    class AtAnOldServer(MemoryBroker):
        async def open(self):
            await super().open()
            self.capabilities = replace(self.capabilities, strict_priority=False)

    harness = Harness("memory://old", adapter=AtAnOldServer)
    assert not (await harness.capabilities()).strict_priority
    with pytest.raises(pytest.skip.Exception, match=r"RULE NOT CHECKED: .* declares strict_priority=False"):
        await BrokerConformance().test_a_larger_priority_is_served_first_whenever_it_was_sent(harness)


@pytest.mark.anyio
async def test_an_adapter_that_passes_over_delays_as_the_contract_says_keeps_the_rule():
    class KnowsNoDelays(MemoryBroker):
        capabilities = replace(MemoryBroker.capabilities, send_delay=False, abandon_delay=False)

        async def send(self, queue, messages, *, delay=0.0):
            await super().send(queue, messages)

        async def abandon(self, deliveries, *, delay=0.0, counted=True):
            await super().abandon(deliveries, counted=counted)

    harness = Harness("memory://undelayed", adapter=KnowsNoDelays)
    await BrokerConformance().test_a_delay_that_the_product_cannot_keep_is_none(harness)


# --- the harness of a server ---


@pytest.mark.anyio
async def test_a_killed_server_is_gone_and_comes_back_at_its_address_with_its_messages():
    server = TinyServer()
    await server.start()
    harness = TinyServerHarness(server)
    async with harness.connect_to_queue() as (broker, queue):
        await broker.send(queue, [Message(body=b"kept")])
        await harness.stop_server()
        with pytest.raises(BrokerUnavailableError, match=rf"no server at tiny://127\.0\.0\.1:{server.port}.*start it"):
            await ServedBroker(harness.url).open()
        await harness.start_server()
        assert (await harness.take_one(broker, queue)).message.body == b"kept"
    await server.stop()


class KnowsNoPositions(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, queue_position=False)
    position = Broker.position


@pytest.mark.anyio
async def test_an_adapter_without_positions_leaves_the_verb_out_and_its_rules_are_not_checked():
    harness = Harness("memory://knows-no-positions", adapter=KnowsNoPositions)
    rules = BrokerConformance()
    for name in dir(rules):
        if name.startswith("test_a_position") or name.endswith("position"):
            with pytest.raises(pytest.skip.Exception, match="declares queue_position=False"):
                await getattr(rules, name)(harness)
    await rules.test_an_unknown_queue_raises_naming_it(harness)
    await rules.test_every_verb_of_a_closed_broker_raises(harness)
    async with harness.connect_to_queue() as (broker, queue):
        with pytest.raises(NotImplementedError, match="KnowsNoPositions has no queue_position"):
            await broker.position(queue, "m")
