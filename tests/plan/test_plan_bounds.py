"""Numbers that nobody means are told to whoever typed them: nothing hangs, nothing fills the memory."""

from __future__ import annotations

import json

import pytest

from dumbwaiter.cli import main
from dumbwaiter.config.quantities import MOST_REPLICAS
from dumbwaiter.errors import ConfigError
from dumbwaiter.plan import bounds
from dumbwaiter.plan.comparing import Generated, processes_for
from dumbwaiter.plan.generators import GENERATORS
from dumbwaiter.plan.pool import Pool
from dumbwaiter.plan.services import Curve, Inputs
from dumbwaiter.plan.simulation import Kills, Setting, World, simulate
from dumbwaiter.policies.scaling import Rules

pytestmark = pytest.mark.timeout(180)  # what is refused takes no time, and what is not seconds

QUICK = [
    "--generate",
    "poisson",
    "--service",
    "0.1",
    "--duration",
    "1m",
    "--rate",
    "1",
    "--seeds",
    "1",
    "--signal",
    "age",
]


@pytest.fixture
def plan(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main(["plan", *arguments])
        output, errors = capsys.readouterr()
        return code, output, errors

    return run


_NUMBERS = ["--rate", "--faster", "--varies", "--price", "--spot-kills"]
_WHOLE = ["--seeds", "--max-batch", "--min-replicas", "--max-replicas"]
_TIMES = [
    *("--duration", "--boot", "--load", "--notice", "--scale-in-after", "--idle-after", "--cooldown", "--late"),
    *("--warm-up", "--drain-target", "--spare", "--messages-each", "--age-target", "--polling-interval"),
    *("--stabilization", "--spot-all-at", "--service", "--transit"),
]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308", "1e400", "-1", "NaN"])
@pytest.mark.parametrize("option", _NUMBERS)
def test_a_number_out_of_range_is_told_with_its_option_and_range(plan, option, value):
    code, output, errors = plan(*QUICK, f"{option}={value}")
    assert (code, output) == (2, "")
    assert f"'{option}'" in errors
    assert "is not in the range" in errors
    assert "<=x<=" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("value", ["1" + "0" * 30, "-1", "9" * 5000])
@pytest.mark.parametrize("option", _WHOLE)
def test_so_is_a_whole_number(plan, option, value):
    code, output, errors = plan(*QUICK, f"{option}={value}")
    assert (code, output) == (2, "")
    assert f"'{option}'" in errors


@pytest.mark.parametrize("value", ["100000d", "9" * 400, "101d"])
@pytest.mark.parametrize("option", _TIMES)
def test_so_are_times_and_lists(plan, option, value):
    code, output, errors = plan(*QUICK, option, value)
    assert (code, output) == (2, "")
    assert f"'{option}'" in errors
    assert " from " in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("value", ["nan", "inf", "1e308", "-1", "0.0009ms", "0"])
def test_nothing_takes_a_model_no_time_or_for_ever(plan, value):
    code, _, errors = plan(*QUICK, f"--service={value}")
    assert (code, f"'{value}' is not in the range from 0.001ms to 1d" in errors) == (2, True)


def test_a_list_has_an_end(plan):
    assert "101 values are more than 100" in plan(*QUICK, "--spare", ",".join(["1"] * 101))[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--curve", "1e308+1e308b"), "--curve: '1e308+1e308b' is no time that a batch takes"),
        (("--curve", "0+0b"), "is no time that a batch takes"),
        (("--curve", "1+1e-300b"), "each input of it nothing or 1e-06 s and more"),
        (("--service", "1", "--heavy", "inf:0.1"), "heavy inputs may take from 1e-06 to 86400 s"),
        (("--service", "1", "--heavy", "nan:0.1"), "says no heavy inputs"),
        (("--service", "1", "--heavy", "1:nan"), "says no heavy inputs"),
        (("--service", "1", "--error", "nan"), "is no share"),
        (("--service", "1", "--goal", "inf%"), "is no share"),
        (("--service", "1", "--rate", "1000000", "--duration", "1d"), "86,400,000,000 requests are too many"),
        (("--service", "1", "--duration", "100d", "--rate", "1"), "give fewer --seeds, fewer values to try or less"),
    ],
)
def test_what_would_take_too_much_is_refused(plan, arguments, said):
    code, output, errors = plan("--generate", "poisson", *arguments)
    assert (code, output) == (2, "")
    assert said in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("arrival\n1e308\n-1e308\n", "t.csv:2: arrival '1e308' is no moment; it is at most 1e+12 s from 0"),
        ("arrival\n0\n1e11\n", "lasts 1.16e+06 days; at most 100 can be simulated"),
        ("arrival\n0001-01-01T00:00:00\n9999-12-31T00:00:00\n", "t.csv"),
        ("arrival,size\n1,1e30\n", "t.csv:2: size '1e30' is no number from 0 to 1099511627776"),
        ("arrival,service\n1,1e308\n", "t.csv:2: service '1e308' is no number from 0 to 86400"),
        ("arrival,service\n1," + "9" * 5000 + "\n", "9999…"),
    ],
)
def test_a_trace_of_such_numbers_is_told_by_its_line(plan, tmp_path, lines, said):
    (tmp_path / "t.csv").write_text(lines)
    code, output, errors = plan("t.csv", "--service", "1")
    assert (code, output) == (2, "")
    assert said in errors
    assert errors.count("\n") == 1
    assert len(errors) < 300


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1" + "0" * 6000, "-1e400", "true"])
def test_so_is_one_of_json_lines(plan, tmp_path, number):
    (tmp_path / "t.jsonl").write_text(f'{{"arrival": 1, "size": {number}}}\n')
    code, _, errors = plan("t.jsonl", "--service", "1")
    assert code == 2
    assert "t.jsonl:1" in errors
    assert len(errors) < 300


def test_a_file_with_too_many_requests_is_read_no_further(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(bounds.check_requests, "__defaults__", (3,))
    (tmp_path / "t.csv").write_text("arrival\n" + "1\n" * 4 + "never read\n")
    assert "about 4 requests are too many; at most 3 can" in plan("t.csv", "--service", "1")[2]


def test_bursts_may_be_more_than_the_average_but_not_without_end(monkeypatch):
    monkeypatch.setattr("dumbwaiter.plan.generators.MOST_AT_ONCE", 50)
    with pytest.raises(ConfigError, match=r"--generate mmpp2, seed 1: about \d+ requests are too many"):
        Generated("mmpp2", Inputs(Curve()), 10.0, 60.0).trace(1)


@pytest.mark.parametrize("name", sorted(GENERATORS))
@pytest.mark.parametrize("extreme", [("1e-6", "1s"), ("1e-6", "2d"), ("20000", "1s")])
def test_the_ends_of_the_ranges_are_simulated(plan, name, extreme):
    rate, duration = extreme
    arguments = ["--generate", name, "--rate", rate, "--duration", duration, "--service", "0.000001", "--seeds", "1"]
    code, output, errors = plan(*arguments, "--signal", "messages", "--messages-each", "0.001", "--json")
    assert code == 0, errors
    assert json.loads(output)["duration"] > 0


@pytest.mark.parametrize(
    "more",
    [
        ("--varies", "100"),
        ("--service", "86400", "--on", "keda"),
        ("--boot", "1d", "--load", "1d", "--on", "keda"),
        ("--spot-kills", "360", "--notice", "0s"),
        ("--spot-all-at", ",".join(["0s"] * 100)),
        ("--heavy", "86400:1", "--on", "keda"),
        ("--error", "100%"),
        ("--price", "1000000000"),
        ("--on", "keda", "--polling-interval", "1s", "--stabilization", "1h", "--cooldown", "0s"),
        ("--curve", "86399+0b", "--max-batch", "65536", "--on", "keda"),
        ("--drain-target", "1ms", "--spare", "1000", "--signal", "work"),
    ],
)
def test_so_are_those_of_the_world(plan, more):
    given = [*QUICK, *more]
    if "--curve" in more:
        del given[given.index("--service") : given.index("--service") + 2]
    code, output, errors = plan(*given)
    assert code == 0, errors
    assert "later than 30 s" in output


def test_workers_that_are_ordered_without_end_are_an_error(monkeypatch):
    monkeypatch.setattr(bounds, "MOST_ORDERED", 100)
    world = World(Curve(each=1.0), kills=Kills(hourly=360.0, notice=0.0))
    rules = Rules(max_replicas=20, min_replicas=20)
    trace = Generated("poisson", Inputs(world.curve), 1.0, 600.0).trace(1)
    with pytest.raises(ConfigError, match="more than 100 workers were ordered in one run; give less --spot-kills"):
        simulate(trace, Setting("many", rules), world, seed=1)


def test_ten_thousand_workers_leave_in_no_time():
    trace = Generated("poisson", Inputs(Curve(each=1.0)), 1.0, 60.0).trace(1)
    pool = Pool(trace, Curve(each=1.0))
    for _ in range(5):
        pool.order(MOST_REPLICAS, pool.now)
        pool.advance(pool.now + 1.0)
        pool.kill(pool.alive(), notice=30.0, lock=60.0)
    assert pool.current == 0


def test_settings_of_more_workers_than_can_be_simulated_are_told(plan, tmp_path):
    (tmp_path / "dumbwaiter.toml").write_text("[scaling]\nmax_replicas = 1000000\n")
    code, _, errors = plan(*QUICK)
    assert (code, "max_replicas" in errors, errors.count("\n")) == (2, True, 1)
    (tmp_path / "dumbwaiter.toml").write_text("[scaling]\nmax_replicas = 10000\n")
    assert plan(*QUICK)[0] == 0


def test_looks_without_end_are_told_too(plan, tmp_path):
    (tmp_path / "dumbwaiter.toml").write_text('[scaling]\nlook_every = "0.0000001s"\n')
    assert "looks each are" in plan(*QUICK)[2]


def test_processes_together_hold_no_more_than_two_large_runs():
    assert processes_for(1000, 20, cores=64) == 1
    assert processes_for(100_000, 20, cores=64) == 20
    assert processes_for(100_000, 200, cores=64) == 64
    assert processes_for(bounds.MOST_REQUESTS, 200, cores=64) == 2
    assert processes_for(bounds.MOST_AT_ONCE, 200, cores=64) == 1
    assert processes_for(0, 200, cores=64) == 1
