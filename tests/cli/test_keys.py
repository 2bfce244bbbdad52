"""`dumbwaiter keys`: make, list, rotate and revoke, as an operator would."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.keyring import KeyReplacedError, has_secret, load_keys, mint, read_token, save_key
from dumbwaiter.cli.keys import _rotate

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(project):
    return open_store(f"file://{project}/.dumbwaiter/blobs")


async def test_a_key_is_printed_once_and_only_its_hash_is_stored(run, store):
    made = run("keys", "create", "--name", "ci", "--tenant", "acme")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    key_id, secret = read_token(token)
    (key,) = await load_keys(store)
    assert (key.id, key.tenant, key.name) == (key_id, "acme", "ci")
    assert has_secret(key, secret)
    assert "shown this once" in made.stderr
    assert secret not in made.stderr
    listed = run("keys", "list").stdout + run("keys", "list", "--json").stdout
    assert key_id in listed
    assert secret not in listed
    assert key.hash not in listed


async def test_the_limits_are_kept_and_shown(run, store):
    arguments = ["--rate", "60/min", "--burst", "5", "--in-flight", "7", "--expires", "90d", "--json"]
    made = json.loads(run("keys", "create", *arguments).stdout)
    (key,) = await load_keys(store)
    assert (key.rate, key.burst, key.in_flight) == (1.0, 5.0, 7)
    assert key.expires_at - time.time() == pytest.approx(90 * 86400, abs=60)
    assert (made["id"], made["rate"], made["in_flight"], made["usable"]) == (key.id, 1.0, 7, True)
    assert read_token(made["token"])[0] == key.id
    assert "hash" not in made
    row = run("keys", "list").stdout.splitlines()[1]
    assert "1/s, 5 at once" in row
    assert time.strftime("%Y-%m-%d", time.localtime(key.expires_at)) in row


@pytest.mark.parametrize(
    ("rate", "per_second", "burst", "words"),
    [
        ("10/s", 10.0, 10.0, "10/s"),
        ("30/min", 0.5, 30.0, "30/min"),
        ("6/h", 1 / 600, 6.0, "6/h"),
        ("0.5/s", 0.5, 1.0, ""),
    ],
)
async def test_a_rate_is_so_many_in_a_unit_and_by_default_as_many_at_once(run, store, rate, per_second, burst, words):
    assert run("keys", "create", "--rate", rate).returncode == 0
    (key,) = await load_keys(store)
    assert (key.rate, key.burst) == (pytest.approx(per_second), burst)
    assert words in run("keys", "list").stdout


async def test_rotating_makes_another_of_the_same_tenant_and_limits_and_lets_the_old_one_end(run, store):
    token = run("keys", "create", "--tenant", "acme", "--rate", "10/s", "--in-flight", "3").stdout.strip()
    old_id = read_token(token)[0]
    rotated = run("keys", "rotate", old_id, "--overlap", "1h")
    assert rotated.returncode == 0, rotated.stderr
    assert f"key {old_id} is valid until" in rotated.stderr
    old, new = await load_keys(store)
    assert (old.id, new.id) == (old_id, read_token(rotated.stdout.strip())[0])
    assert (new.tenant, new.rate, new.in_flight, new.expires_at) == ("acme", 10.0, 3, None)
    assert old.expires_at - time.time() == pytest.approx(3600, abs=60)


async def test_the_new_key_lives_as_long_as_the_old_one_was_made_for_and_its_end_is_told(run, store):
    token = run("keys", "create", "--expires", "90d").stdout.strip()
    rotated = run("keys", "rotate", token)
    old, new = await load_keys(store)
    assert new.expires_at - new.created_at == pytest.approx(90 * 86400)
    assert old.expires_at - time.time() == pytest.approx(86400, abs=60)
    assert f"key {new.id} is valid until {time.strftime('%Y-%m-%d', time.localtime(new.expires_at))}" in rotated.stderr
    shorter = json.loads(run("keys", "rotate", new.id, "--expires", "30d", "--json").stdout)
    assert shorter["expires_at"] - shorter["created_at"] == pytest.approx(30 * 86400)


async def test_a_key_is_rotated_once_and_then_its_successor_is(run, store):
    token = run("keys", "create", "--expires", "90d").stdout.strip()
    first = read_token(run("keys", "rotate", token).stdout.strip())[0]
    again = run("keys", "rotate", token)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"was rotated before, and {first!r} took its place: rotate that one" in again.stderr
    second = json.loads(run("keys", "rotate", first, "--json").stdout)
    assert second["expires_at"] - second["created_at"] == pytest.approx(90 * 86400)
    assert second["replaced"]["replaced_by"] == second["id"]
    assert len(await load_keys(store)) == 3


async def test_of_two_rotations_at_once_one_wins_and_the_other_leaves_no_key(store):
    old, _ = mint(tenant="acme", name="", now=time.time(), expires_at=time.time() + 90 * 86400)
    await save_key(store, old)
    tries = [_rotate(store, old.id, 3600.0, None) for _ in range(8)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    won = [outcome for outcome in outcomes if not isinstance(outcome, KeyReplacedError)]
    ((new, _, replaced),) = won
    assert [one.id for one in await load_keys(store)] == [old.id, new.id]
    assert replaced.replaced_by == new.id


async def test_where_a_key_lies_is_told_to_whoever_makes_one(run, project):
    made = run("keys", "create")
    assert f"; it lies in file:{project}/.dumbwaiter/blobs, for the gateways of that store\n" in made.stderr


async def test_an_end_is_lifted_only_when_that_is_said(run, store):
    token = run("keys", "create", "--expires", "90d").stdout.strip()
    rotated = run("keys", "rotate", token, "--expires", "never")
    _, new = await load_keys(store)
    assert new.expires_at is None
    assert f"key {new.id} never expires" in rotated.stderr


async def test_a_rotation_overlaps_by_a_day_unless_told_otherwise(run, store):
    token = run("keys", "create").stdout.strip()
    rotated = json.loads(run("keys", "rotate", token, "--json").stdout)  # the whole key names itself, too
    assert rotated["replaced"]["id"] == read_token(token)[0]
    assert rotated["replaced"]["expires_at"] - time.time() == pytest.approx(86400, abs=60)
    assert rotated["token"] != token


async def test_a_revoked_key_is_gone_and_the_empty_store_is_named(run, project, store):
    key_id = read_token(run("keys", "create").stdout.strip())[0]
    assert run("keys", "revoke", key_id).stdout == f"revoked {key_id}\n"
    assert await load_keys(store) == []
    assert run("keys", "list").stdout == f"no API keys in file:{project}/.dumbwaiter/blobs\n"
    again = run("keys", "revoke", key_id)
    assert (again.returncode, again.stderr) == (
        1,
        f"dumbwaiter: error: no API key {key_id!r}; see: dumbwaiter keys list\n",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "--rate", "fast"], "expected a rate such as 10/s, 60/min or 1000/h, not 'fast'"),
        (["create", "--rate", "0/s"], "expected a rate"),
        (["create", "--rate", "1000001/s"], "'1000001/s' is above 1000000/s; leave --rate out for no limit"),
        (["create", "--rate", f"{10**400}/h"], "is above 1000000/s"),
        (["create", "--expires", "0s"], "expected a duration above 0s and up to 36500d, or never, not '0s'"),
        (["create", "--expires", "99999999999d"], "expected a duration above 0s"),
        (["create", "--expires", "yesterday"], "expected a duration such as 12h or 90d, or never, not 'yesterday'"),
        (["rotate", "x", "--expires", "0s"], "expected a duration above 0s"),
        (["create", "--burst", "3"], "--burst goes with --rate"),
        (["create", "--expires", "soon"], "expected a duration"),
        (["create", "--in-flight", "0"], "in-flight"),
        (["create", "--tenant", ""], "--tenant must have 1 to 128 printable characters"),
        (["list", "--blobs", "memory:"], "memory: lives within one process"),
        (["rotate"], "missing argument"),
    ],
)
def test_wrong_use_is_exit_code_2_and_names_what_is_wrong(run, arguments, words):
    ended = run("keys", *arguments)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["create", "list", "rotate", "revoke"])
def test_help_has_examples(run, command):
    assert f"dumbwaiter keys {command}" in run("keys", command, "--help").stdout
