"""`dumbwaiter submit` and `dumbwaiter result`: straight on the queue, without a gateway."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
from PIL import Image

from processes import run_on_terminal, starting


def lines_of(shown):
    return [json.loads(line) for line in shown.stdout.splitlines()]


def test_a_text_is_answered_as_it_is(served):
    shown = served.run("submit", "shout", "two eggs")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "TWO EGGS\n", "")


def test_a_file_and_standard_input_are_sent(served, tmp_path):
    file = tmp_path / "order.txt"
    file.write_text("from a file")
    assert served.run("submit", "shout", str(file)).stdout == "FROM A FILE\n"
    assert served.run("submit", "shout", "-", stdin="from a pipé".encode()).stdout == "FROM A PIPÉ\n"


def test_a_json_value_is_sent_as_json(served):
    assert served.run("submit", "add", "--data", '{"a": 1, "b": 2}').stdout == "3\n"
    assert served.run("submit", "shout", "-d", '"a JSON string"').stdout == "A JSON STRING\n"


def test_a_content_type_that_is_said_is_sent(served, tmp_path):
    file = tmp_path / "numbers"
    file.write_text('{"a": 1.5}')
    assert served.run("submit", "add", "--content-type", "application/json", str(file)).stdout == "1.5\n"


def test_many_answers_come_in_the_order_of_the_inputs_each_with_its_name(served):
    texts = [f"text {number}" for number in range(50)]
    shown = served.run("submit", "shout", *texts)
    assert shown.returncode == 0
    assert shown.stdout.splitlines() == [f"{text}\t{text.upper()}" for text in texts]


def test_json_has_the_input_the_id_the_output_and_where_the_time_went(served):
    (answer,) = lines_of(served.run("submit", "shout", "abc", "--json"))
    assert (answer["input"], answer["status"], answer["output"]) == ("abc", "succeeded", "ABC")
    assert len(answer["id"]) == 32
    assert {"queued", "batched", "device"} <= set(answer["timings"])


def test_a_failed_answer_is_told_with_its_reason_and_the_others_are_answered(served):
    shown = served.run("submit", "add", "--data", "[1]", "--data", '{"a": 2}')
    assert shown.returncode == 1
    assert shown.stdout == '{"a": 2}\t2\n'
    assert shown.stderr.startswith("dumbwaiter: error: [1]: bad-input: ")
    failed, good = lines_of(served.run("submit", "add", "--json", "--data", "[1]", "--data", '{"a": 2}'))
    assert (failed["status"], failed["error"]["code"]) == ("failed", "bad-input")
    assert (good["status"], good["output"]) == ("succeeded", 2)


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_a_refused_text_that_may_be_a_mistyped_file_is_told_so(served, options):
    shown = served.run("submit", "add", "numbers.jsn", *options)
    assert shown.returncode == 1
    assert "bad-input: " in shown.stderr
    assert shown.stderr.endswith("; no file is named 'numbers.jsn', so it was sent as a text\n")
    assert "no file" not in served.run("submit", "add", "--text", "numbers.jsn", *options).stderr
    assert "no file" not in served.run("submit", "add", "--data", "[1]", *options).stderr


def test_without_waiting_the_id_is_printed_and_the_result_is_fetched_later(served):
    left = served.run("submit", "shout", "--no-wait", "later")
    assert left.returncode == 0
    fetched = served.run("result", "--wait", "30s", left.stdout.strip())
    assert (fetched.returncode, fetched.stdout) == (0, "LATER\n")
    (again,) = lines_of(served.run("result", "--json", left.stdout.strip()))
    assert (again["id"], again["output"]) == (left.stdout.strip(), "LATER")


def test_the_result_of_a_failure_makes_the_exit_code_1(served):
    (left,) = lines_of(served.run("submit", "add", "--no-wait", "--json", "--data", "[1]"))
    assert left["input"] == "[1]"
    fetched = served.run("result", "--wait", "30s", left["id"])
    assert (fetched.returncode, fetched.stdout) == (1, "")
    assert "bad-input: " in fetched.stderr


def test_a_result_that_is_not_there_says_what_that_may_mean(served):
    shown = served.run("result", "0" * 32)
    assert shown.returncode == 1
    assert f"no result of '{'0' * 32}': it waits or runs still (then try --wait 30s), or no such" in shown.stderr


def test_whoever_cancels_an_id_that_nobody_knows_is_told_so(served):
    shown = served.run("cancel", "abc")
    assert (shown.returncode, shown.stdout) == (0, "canceled abc\n")
    assert shown.stderr == (
        "nothing is known of abc: if it waits it will not run; if you mistyped it, cancel the right one\n"
    )
    shown = served.run("cancel", "--json", "abd")
    assert json.loads(shown.stdout) == {"id": "abd", "status": "canceled"}
    assert "nothing is known of abd" in shown.stderr
    shown = served.run("cancel", "")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "no request can have this id: it is empty; give the one that" in shown.stderr


@pytest.mark.parametrize("options", [(), ("--no-wait",), ("--stream",)])
def test_the_systems_own_queues_take_no_requests(served, options):
    shown = served.run("submit", "dumbwaiter.webhooks", "hi", *options)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == (
        "dumbwaiter: error: 'dumbwaiter.webhooks' is no model: queues in 'dumbwaiter.' are the system's own;"
        " name a model\n"
    )


def test_an_unknown_model_is_told_with_those_that_there_are(served):
    shown = served.run("submit", "shot", "x", "y")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == ("dumbwaiter: error: no queue named 'shot'; there are: add, shout; did you mean 'shout'?\n")


def test_without_any_queue_it_says_where_it_looked_and_what_to_do(run, project):
    shown = run("submit", "shout", "x")
    assert shown.returncode == 1
    assert f"there are no queues here: no sqlite:{project}/.dumbwaiter/queue.db; " in shown.stderr
    assert "; go to the project's folder, name its --broker, or start a worker first" in shown.stderr


@pytest.fixture(scope="module")
def resizing(tmp_path_factory):
    """A `serve` of models that return pictures: one says so, the other does not. Beside them lie two pictures."""
    folder = tmp_path_factory.mktemp("resizing")
    (folder / "pictures.py").write_text(PICTURES)
    for name in ("cat", "dog"):
        Image.new("RGB", (8, 6)).save(folder / f"{name}.jpg")
    with starting(folder) as start:
        yield start("pictures:Resize", "pictures:Unsaid").ready()


PICTURES = """
from PIL.Image import Image

class Resize:
    def __call__(self, image: Image) -> Image:
        open("called", "a").write("x")
        return image.resize((4, 3))

class Unsaid:
    def __call__(self, image):
        return image.resize((4, 3))
"""


def test_one_picture_goes_to_a_file_as_it_is_and_is_refused_on_a_terminal_before_it_is_sent(resizing):
    shown = resizing.run("submit", "resize", "cat.jpg")
    assert Image.open(io.BytesIO(shown.raw)).size == (4, 3)
    (resizing.project / "called").unlink()
    code, shown = run_on_terminal(resizing.project, "submit", "resize", "cat.jpg")
    assert code == 1
    assert shown == (
        "dumbwaiter: error: the output is image/png, which is not for a terminal; write it to a file: … > FILE,"
        " or say --json\n"
    )
    assert not (resizing.project / "called").exists()
    code, shown = run_on_terminal(resizing.project, "submit", "unsaid", "cat.jpg")
    assert code == 1
    assert "the output is image/png, which is not for a terminal" in shown


@pytest.mark.parametrize("model", ["resize", "unsaid"])
def test_several_pictures_cannot_share_one_stream(resizing, model):
    shown = resizing.run("submit", model, "cat.jpg", "dog.jpg")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == (
        "dumbwaiter: error: the outputs are image/png, which cannot share one stream; say --output-dir DIR or --json,"
        " or give one input at a time: … > FILE\n"
    )
    first, second = lines_of(resizing.run("submit", model, "--json", "cat.jpg", "dog.jpg"))
    assert first["output"]["content_type"] == second["output"]["content_type"] == "image/png"
    assert Image.open(io.BytesIO(base64.b64decode(first["output"]["base64"]))).size == (4, 3)


def test_outputs_go_into_files_named_after_the_inputs(resizing, tmp_path):
    shown = resizing.run("submit", "resize", "cat.jpg", "dog.jpg", "--output-dir", f"{tmp_path}/new/small")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == f"{tmp_path}/new/small/cat.png\n{tmp_path}/new/small/dog.png\n"
    with Image.open(tmp_path / "new" / "small" / "dog.png") as dog:
        assert dog.size == (4, 3)


def test_outputs_that_are_text_or_json_and_inputs_that_are_no_files_have_names_too(served, tmp_path):
    shown = served.run("submit", "shout", "one", "two", "--output-dir", str(tmp_path))
    assert shown.returncode == 0
    assert (tmp_path / "input-1.txt").read_text() == "ONE"
    assert (tmp_path / "input-2.txt").read_text() == "TWO"
    assert served.run("submit", "add", "-d", '{"a": 1}', "--output-dir", f"{tmp_path}/x").returncode == 0
    assert (tmp_path / "x" / "input-1.json").read_text() == "1"


def test_no_file_is_ever_overwritten_and_that_is_known_before_anything_is_sent(resizing, tmp_path):
    (tmp_path / "dog.png").write_text("mine")
    shown = resizing.run("submit", "resize", "cat.jpg", "dog.jpg", "--output-dir", str(tmp_path))
    assert (shown.returncode, shown.stdout) == (2, "")
    assert (
        f"the output of dog.jpg has no place: {tmp_path}/dog.png is there already; choose another --output"
        in shown.stderr
    )
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("dog.png", "mine")]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["cat.jpg", "--json"], "--output-dir and --json exclude each other"),
        (["cat.jpg", "--no-wait"], "--output-dir and --no-wait exclude each other"),
        (["a text", "a text"], "a text is given twice, and --output-dir names outputs after the inputs"),
        (["cat.jpg", "./cat.jpg"], "the output of ./cat.jpg has no place: that of cat.jpg has the same name; "),
    ],
)
def test_what_an_output_folder_cannot_do_is_refused(resizing, tmp_path, arguments, complaint):
    shown = resizing.run("submit", "resize", *arguments, "--output-dir", str(tmp_path))
    assert (shown.returncode, shown.stdout) == (2, "")
    assert complaint in shown.stderr


def test_a_folder_that_cannot_be_made_is_named(resizing):
    shown = resizing.run("submit", "resize", "cat.jpg", "--output-dir", "/proc/nowhere")
    assert shown.returncode == 2
    assert "--output-dir /proc/nowhere cannot be used: No such file or directory; see: " in shown.stderr


def test_json_is_one_line_per_answer_on_a_terminal_too(served):
    code, shown = run_on_terminal(served.project, "submit", "shout", "--json", "one", "two")
    assert code == 0
    assert [json.loads(line)["output"] for line in shown.splitlines()] == ["ONE", "TWO"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["cat.jpg"], "no file named 'cat.jpg'; if it is a text, say --text; see: dumbwaiter submit --help"),
        ([""], "an input is empty: name a file, - for standard input, or a text; is a variable unset? see: "),
        ([], "no input; give a file, - for standard input, a text, or --data JSON; see: dumbwaiter submit --help"),
        (["--data", "{"], "--data '{' is not JSON: "),
        (["x", "--wait", "soon"], "--wait': expected a duration such as 500ms, 30s, 2m, 1h or 7d, not 'soon'"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_is_sent(served, arguments, complaint):
    shown = served.run("submit", "shout", "good", *arguments) if arguments else served.run("submit", "shout")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert complaint in shown.stderr


def test_a_file_that_cannot_be_read_fails_alone(served, tmp_path):
    file = tmp_path / "gone.txt"
    file.symlink_to("/proc/self/mem")  # it is there, and reading it fails, also for root
    shown = served.run("submit", "shout", str(file), "good")
    assert (shown.returncode, shown.stdout) == (1, "good\tGOOD\n")
    assert f"{file}: cannot read {file}: " in shown.stderr


def test_no_answer_in_time_is_told_and_the_worker_serves_on(serve):
    serving = serve("light:Slow").ready()
    shown = serving.run("submit", "slow", "2", "0", "--wait", "1s")
    assert shown.returncode == 1
    assert "dumbwaiter: error: 2: no answer to '" in shown.stderr
    assert re.search(r"' from 'slow' within (1|0\.9\d*) s; it may still be waiting or running", shown.stderr)
    assert serving.run("submit", "slow", "0", "--wait", "30s").stdout == "0\n"


def test_a_broker_in_memory_cannot_be_looked_into(run):
    shown = run("submit", "shout", "x", "--broker", "memory:")
    assert shown.returncode == 2
    assert "memory: lives within one `dumbwaiter serve`; no other process can look into it" in shown.stderr
