"""Numbers end far beyond what anybody means, and one beyond its end is told where it stands."""

from __future__ import annotations

import math

import msgspec
import pytest

from dumbwaiter.config import TABLES, ModelSettings, Settings, load_settings, parse_size
from dumbwaiter.config.quantities import DAY
from dumbwaiter.errors import ConfigError

STRUCTS = {"": Settings, "models": ModelSettings, **TABLES}


def load(folder, text):
    file = folder / "dumbwaiter.toml"
    file.write_text(text)
    return load_settings(file, environ={})


def numbers(kind):
    """Those of *kind* within a type."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return numbers(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [one for part in kind.types for one in numbers(part)]
    return [kind] if isinstance(kind, msgspec.inspect.FloatType | msgspec.inspect.IntType) else []


SETTINGS = {
    f"{table}.{field.name}": one
    for table, struct in STRUCTS.items()
    for field in msgspec.inspect.type_info(struct).fields
    for one in numbers(field.type)
}


@pytest.mark.parametrize(
    "name", [name for name, kind in SETTINGS.items() if isinstance(kind, msgspec.inspect.FloatType)]
)
def test_no_number_may_be_infinite_or_none_at_all(name):
    kind = SETTINGS[name]
    assert kind.le is not None
    assert kind.ge is not None or kind.gt is not None


@pytest.mark.parametrize("name", [name for name in SETTINGS if name.startswith(("kubernetes.", "scaling."))])
def test_no_number_that_a_cluster_is_told_is_without_an_end(name):
    assert SETTINGS[name].le is not None


@pytest.mark.parametrize(
    ("table", "line", "words"),
    [
        ("models.a.scaling", "max_replicas = 3000000000", "expected a whole number from 1 to 10000, not 3000000000"),
        ("scaling", "min_replicas = 10001", "expected a whole number from 0 to 10000, not 10001"),
        ("models.a", "replicas = 3000000", "expected a whole number from 0 to 10000, not 3000000"),
        ("models.a.scaling", "idle_after = '99999999999d'", "30s, 2m, 1h or 7d, at most 365d, not '99999999999d'"),
        ("models.a.scaling", "scale_in_after = inf", "at most 365d, not inf"),
        ("scaling", "cold_start = 1e300", "at most 365d, not 1e+300"),
        ("scaling", "cold_start = -1", "at most 365d, not -1"),
        ("scaling", "drain_target = nan", "above 0 and at most 365d, not nan"),
        ("scaling", "spare = inf", "expected a number from 0 to 1000, not inf"),
        ("scaling", "messages_each = 1e300", "expected a number, above 0 and at most 1000000, not 1e+300"),
        ("worker", "grace = inf", "at most 365d, not inf"),
        ("worker", "load_timeout = 1e15", "at most 365d, not 1000000000000000.0"),
        ("models.a", "timeout = inf", "at most 365d, not inf"),
        ("models.a", "latency_target = -1", "at most 365d, not -1"),
        ("models.a", f"park_after = '{'9' * 400}d'", "at most 365d, not '999"),
        ("gateway", "results_kept_for = '36501d'", "at most 36500d, not '36501d'"),
        ("kubernetes", "polling_interval = '100000d'", "above 0 and at most 365d, not '100000d'"),
        ("kubernetes", "boot = '2000000000s'", "at most 365d, not '2000000000s'"),
        ("kubernetes", "notice = inf", "above 0 and at most 365d, not inf"),
        ("kubernetes", "containers = 1001", "expected a whole number from 1 to 1000, not 1001"),
        ("kubernetes", "worker_memory = '1025TiB'", "above 0 and at most 1024TiB, not '1025TiB'"),
        ("kubernetes", f"worker_memory = '{'9' * 400}GiB'", "expected a size such as 512, 100kB or 32MiB, not '999"),
    ],
)
def test_beyond_its_end_a_number_is_refused_with_its_place_and_the_end(tmp_path, table, line, words):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"[{table}]\n{line}\n")
    said = str(caught.value)
    assert f"dumbwaiter.toml:2: {table}.{line.partition(' =')[0]}: expected a" in said
    assert words in said


def test_a_year_a_century_of_results_and_ten_thousand_workers_are_taken(tmp_path):
    settings = load(
        tmp_path,
        """
        [gateway]
        results_kept_for = "36500d"
        [models.a]
        replicas = 10000
        park_after = "365d"
        scaling = { max_replicas = 10000, idle_after = "365d" }
        """,
    )
    a = settings.models["a"]
    assert (a.replicas, a.scaling.max_replicas) == (10_000, 10_000)
    assert (a.park_after, a.scaling.idle_after, settings.gateway.results_kept_for) == (
        365 * DAY,
        365 * DAY,
        36_500 * DAY,
    )


def test_a_size_that_no_number_holds_is_no_size():
    assert math.isinf(float("9" * 400))
    with pytest.raises(ValueError, match="expected a size such as"):
        parse_size("9" * 400)
