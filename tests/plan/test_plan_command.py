"""``dumbwaiter plan`` as it is typed."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.profiles import ServiceProfile, add_to_profile
from dumbwaiter.cli import main
from dumbwaiter.plan.generators import GENERATORS
from dumbwaiter.policies.service_times import Bucket, ServiceTimes

QUICK = ["--rate", "3", "--duration", "10m", "--seeds", "2"]


@pytest.fixture
def plan(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main(["plan", *arguments])
        output, errors = capsys.readouterr()
        # A machine that is busy with other things is told of in between.
        return code, output, re.sub(r"\d+ of \d+ runs, about .* left\n", "", errors)

    return run


def test_it_prints_a_row_for_each_setting_and_the_table_to_paste(plan):
    code, output, errors = plan(
        "--generate", "poisson", "--service", "0.1", *QUICK, "--signal", "work", "--spare", "1,3", "--load", "1s"
    )
    assert code == 0, errors
    assert "poisson, 1," in errors
    assert "2 seeds each" in errors
    lines = output.splitlines()
    assert lines[0].split()[:3] == ["settings", "worker-hours", "cost"]
    assert sum(" work, drain " in line for line in lines) == 3 * 2 + ("is: work" in output)
    assert '[scaling]\nsignal = "work"' in output


def test_drain_targets_that_do_the_same_are_one_row_and_that_is_told(plan):
    work = ("--generate", "poisson", "--service", "0.1", *QUICK, "--signal", "work", "--spare", "3")
    _, output, errors = plan(*work, "--boot", "2m")
    told = "1 settings, 2 seeds each, means ± 95 % confidence; drain_target 2 s, 5 s, 20 s do the same, as a worker"
    assert f"{told} takes 130 s to come, and are tried as one\n" in errors
    assert "work, drain 5 s, spare 3" in output
    assert "do the same" not in plan(*work, "--load", "1s")[2]
    assert "do the same" not in plan("--generate", "poisson", "--service", "0.1", *QUICK, "--signal", "age")[2]


def test_json_says_the_same_as_data(plan):
    arguments = ("--generate", "mmpp2", "--service", "0.1", *QUICK, "--on", "keda", "--messages-each", "1", "--json")
    code, output, errors = plan(*arguments)
    assert (code, errors) == (0, "")
    said = json.loads(output)
    assert {one["signal"] for one in said["settings"]} == {"work", "messages", "age", "native"}
    assert said["seeds"] == [1, 2]
    assert said["offered"] == pytest.approx(0.3, rel=0.3)
    assert said["recommended"]["name"] in {one["name"] for one in said["settings"]}
    assert set(said["pareto"]) <= {one["name"] for one in said["settings"]}
    assert plan(*arguments)[1] == output, "the same seeds, the same answer"


def test_a_trace_is_taken_as_it_is_and_needs_no_seeds(plan, tmp_path):
    (tmp_path / "t.csv").write_text("arrival,service\n" + "\n".join(f"{second},0.2" for second in range(600)))
    code, output, _ = plan("t.csv", "--json", "--signal", "messages")
    said = json.loads(output)
    assert code == 0
    assert (said["requests"], said["seeds"], said["duration"]) == (600, [1], 599.0)
    assert said["settings"][0]["hours"]["half"] is None
    code, output, _ = plan("t.csv", "--json", "--signal", "messages", "--error", "30%", "--faster", "2")
    said = json.loads(output)
    assert (len(said["seeds"]), said["duration"]) == (10, 299.5)


def test_of_several_models_one_is_named(plan, tmp_path):
    (tmp_path / "t.csv").write_text("arrival,model\n0,cats\n1,dogs\n2,dogs\n")
    code, _, errors = plan("t.csv", "--service", "1")
    assert code == 2
    assert "has 2 models; say which with --of, or --of all: cats, dogs" in errors
    assert json.loads(plan("t.csv", "--service", "1", "--of", "dogs", "--json")[1])["requests"] == 2
    assert json.loads(plan("t.csv", "--service", "1", "--of", "all", "--json")[1])["requests"] == 3
    assert "no model 'dog'; did you mean 'dogs'?" in plan("t.csv", "--service", "1", "--of", "dog")[2]


def test_what_was_measured_of_a_model_is_taken(tmp_path):
    store = open_store(f"file:{tmp_path}/blobs")
    times = ServiceTimes(buckets={12: Bucket(0.25, 40.0, time.time())})
    profile = ServiceProfile(model="cats", times=times, load_seconds=4.0, start_seconds=1.5)
    asyncio.run(add_to_profile(store, profile, time.time()))
    (tmp_path / "dumbwaiter.toml").write_text(
        '[models.cats]\ntarget = "cats:Cats"\n[models.cats.scaling]\nmax_replicas = 3\nspare = 7\n'
    )
    command = [sys.executable, "-m", "dumbwaiter", "plan", "--generate", "poisson", *QUICK, "--json"]
    command += ["--model", "cats", "--blobs", f"file:{tmp_path}/blobs", "--signal", "age"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["cold_start"] == pytest.approx(5.5)
    assert said["offered"] == pytest.approx(3 * 0.25, rel=0.2)
    now = said["settings"][0]
    assert (now["name"], now["rules"]["max_replicas"], now["rules"]["spare"]) == ("as it is set", 3, 7.0)
    assert said["recommended"]["toml"].startswith("[models.cats.scaling]")
    assert '\n# cold_start = "5.5s"' in said["recommended"]["toml"], "it is measured anew where it runs"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ((), '# cold_start = "10s"'),
        (("--load", "4s"), 'cold_start = "4s"'),
        (("--boot", "2m"), 'cold_start = "130s"'),
        (("--on", "keda"), 'cold_start = "10s"'),
        (("--on", "keda", "--boot", "2m"), '# cold_start = "130s"'),
    ],
)
def test_a_cold_start_is_only_set_where_it_is_not_what_would_be_taken_anyhow(plan, more, line):
    arguments = ("--generate", "poisson", "--service", "0.1", *QUICK, "--signal", "age", "--goal", "100%", *more)
    assert f"\n{line}  # as planned with; without this line it is measured\n" in plan(*arguments)[1]
    assert f"\n{line}" in json.loads(plan(*arguments, "--json")[1])["recommended"]["toml"]


@pytest.mark.parametrize(
    ("told", "line"), [("", '# cold_start = "4.1s"'), ('cold_start = "9s"\n', 'cold_start = "9s"')]
)
def test_a_cold_start_that_the_settings_tell_is_still_told_after_pasting(plan, tmp_path, told, line):
    profile = ServiceProfile(
        model="cats", times=ServiceTimes(buckets={12: Bucket(0.1, 40.0, time.time())}), load_seconds=4.03
    )
    asyncio.run(add_to_profile(open_store(f"file:{tmp_path}/blobs"), profile, time.time()))
    (tmp_path / "dumbwaiter.toml").write_text(
        f'blobs = "file:blobs"\n[models.cats]\ntarget = "cats:Cats"\n[models.cats.scaling]\nmax_replicas = 1\n{told}'
    )
    dearer = ("--generate", "poisson", *QUICK, "--model", "cats", "--goal", "100%", "--min-replicas", "5")
    said = json.loads(plan(*dearer, "--max-replicas", "9", "--signal", "age", "--json")[1])["recommended"]
    assert said["name"] == "as it is set"
    assert f"\n{line}  # as planned with" in said["toml"]


def test_times_may_have_units_wherever_they_stand(plan):
    def planned(*model):
        return plan("--generate", "poisson", *model, *QUICK, "--signal", "age", "--json")

    for plain, with_units in [
        (("--service", "0.2"), ("--service", "200ms")),
        (("--service", ".2"), ("--service", "0.2s")),
        (("--curve", "0.02+0.004b"), ("--curve", "20ms + 4ms*b")),
        (("--curve", "0.02+0.004b"), ("--curve", "0.02s+4msb")),
        (("--service", "0.2", "--heavy", "3:0.02:0.25"), ("--service", "200 ms", "--heavy", "3s:0.02:0.25")),
    ]:
        assert planned(*with_units) == planned(*plain)
        assert planned(*plain)[0] == 0


def test_the_help_names_all_requests_that_can_be_made_up(capsys):
    assert main(["plan", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    *names, last = sorted(GENERATORS)
    assert f"Make requests up: {', '.join(names)} or {last}." in shown


def test_a_picture_is_drawn_where_it_is_asked_for(plan, tmp_path):
    code, _, errors = plan(
        "--generate", "poisson", "--service", "0.1", *QUICK, "--signal", "age", "--output", "plan.svg"
    )
    assert code == 0, errors
    assert (tmp_path / "plan.svg").read_text().startswith("<?xml")


def test_the_example_of_the_page_does_what_it_shows(plan):
    page = (Path(__file__).parents[2] / "docs" / "plan.md").read_text()
    command, *shown = re.search(r"```console\n\$ dumbwaiter plan (.*?)\n```", page, re.DOTALL)[1].split("\n")
    code, output, errors = plan(*command.split())
    assert code == 0
    pattern = ".*?".join(map(re.escape, "\n".join(shown).split("…")))
    assert re.match(pattern, errors + output, re.DOTALL), errors + output


def test_the_picture_of_the_page_has_the_front_of_its_table():
    docs = Path(__file__).parents[2] / "docs"
    rows = re.findall(r"^\*(>?) +(\S.*?)  ", (docs / "plan.md").read_text(), re.MULTILINE)
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", (docs / "img" / "plan-example.svg").read_text())
    assert len(rows) > 1
    assert [one for one in drawn if one in {name for _, name in rows}] == [name for _, name in rows]
    assert f"recommended: {[mark for mark, _ in rows].index('>') + 1}" in drawn


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there are no requests; name a TRACE, or --generate some (azure, bursts"),
        (("--generate", "poison", "--service", "1"), "did you mean 'poisson'?"),
        (("--generate", "poisson"), "how long does the model take? give --service, --curve or --model"),
        (("--generate", "poisson", "--service", "1", "--curve", "1+1b"), "leave one out"),
        (("--generate", "poisson", "--curve", "fast"), "write the seconds of a batch of b inputs as 0.02+0.004b"),
        (("--generate", "poisson", "--service", "1", "--heavy", "3"), "--heavy: '3' says no heavy inputs"),
        (("--generate", "poisson", "--service", "1", "--signal", "works"), "did you mean 'work'?"),
        (("--generate", "poisson", "--service", "1", "--signal", "native"), "say --on keda too"),
        (
            ("--generate", "poisson", "--service", "1", "--drain-target", "0"),
            "'--drain-target': '0' has one that is not from 1ms to 1d",
        ),
        (("--generate", "poisson", "--service", "1", "--spare", "a,b"), "is no list of numbers"),
        (("--generate", "poisson", "--service", "1", "--spare", "-1"), "leave the sign of '-1' out, none is below 0"),
        (("--generate", "poisson", "--service", "1", "--goal", "200%"), "is no share"),
        (("--generate", "poisson", "--service", "1", "--late", "soon"), "expected a duration"),
        (("--generate", "poisson", "--service", "1", "--warm-up", "5h"), "leaves nothing of 7200 s to count"),
        (("--generate", "poisson", "--service", "1", "--min-replicas", "9", "--max-replicas", "2"), "is more than"),
        (("--generate", "poisson", "--service", "1", "--output", "x.gif"), "names no kind of picture"),
        (("--generate", "poisson", "--service", "1", "--output", "no/x.svg"), "there is no folder"),
        (("nowhere.csv",), "nowhere.csv cannot be read as a trace"),
        (("--generate", "poisson", "--model", "cats"), "nothing was measured of model 'cats'"),
    ],
)
def test_what_cannot_be_planned_is_told_with_what_to_do(plan, arguments, said):
    code, output, errors = plan(*arguments)
    assert (code, output) == (2, "")
    assert said in errors
    assert errors.count("\n") == 1


def test_a_trace_that_does_not_say_how_long_the_model_takes_needs_somebody_who_does(plan, tmp_path):
    (tmp_path / "t.csv").write_text("arrival,service\n0,0.1\n1,\n2,\n")
    code, output, errors = plan("t.csv")
    assert (code, output) == (2, "")
    assert "how long does the model take? t.csv has no service (seconds) for 2 of 3 requests" in errors
    assert plan("t.csv", "--service", "1")[0] == 0
    (tmp_path / "s.csv").write_text("arrival,size\n0,1000\n1,2000\n")
    assert "for 2 of 2 requests; give --service, --curve or --model" in plan("s.csv", "--varies", "1")[2]


def test_a_short_trace_comes_with_a_warning(plan, tmp_path):
    warning = "warning: 999 requests are too few to recommend anything by; take a longer TRACE"
    (tmp_path / "t.csv").write_text("arrival,service\n" + "".join(f"{one},0.1\n" for one in range(999)))
    assert warning in plan("t.csv", "--signal", "age")[2]
    code, output, errors = plan("t.csv", "--signal", "age", "--json")
    assert code == 0
    assert warning in errors
    assert f"warning: {json.loads(output)['warnings'][0]}" in errors
    (tmp_path / "t.csv").write_text("arrival,service\n" + "".join(f"{one},0.1\n" for one in range(1000)))
    assert "warning" not in plan("t.csv", "--signal", "age")[2]


def test_it_is_said_where_the_table_to_paste_belongs(plan):
    good = ("--generate", "poisson", "--service", "0.1", *QUICK, "--signal", "age", "--goal", "100%")
    _, output, _ = plan(*good)
    assert "[scaling] scales every model there, so plan with --model NAME for one of them:\n\n[scaling]\n" in output


def test_what_misses_the_goal_is_not_there_to_be_pasted(plan):
    bad = ("--generate", "poisson", "--service", "1", *QUICK, "--signal", "work", "--max-replicas", "1")
    code, output, _ = plan(*bad)
    assert code == 0
    assert "It had all of its 1 workers in 2 of 2 runs: raise --max-replicas." in output
    assert "[scaling]" not in output
    assert "dumbwaiter.toml" not in output
    rows = [line for line in output.splitlines() if "work, drain" in line and line.startswith(("*", ">", " "))]
    assert any(row.startswith("* ") for row in rows)
    assert not any(">" in row for row in rows)
    recommended = json.loads(plan(*bad, "--json")[1])["recommended"]
    assert (recommended["meets_goal"], recommended["toml"]) == (False, None)
