"""The page to try models from, in a real browser, before real workers."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from browsing import answer, ask, browser, choose, visiting

from processes import family, run_in, starting

MODELS = ("Grey", "Colours", "Scale", "Say", "Echo", "Add")


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    data = pytest.importorskip("skimage.data")
    from PIL import Image

    file = tmp_path_factory.mktemp("pictures") / "chelsea.jpg"
    Image.fromarray(data.chelsea()).save(file)
    return file


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    shutil.copy(Path(__file__).with_name("tried_models.py"), folder / "tried.py")
    with starting(folder) as start:
        yield start(*(f"tried.py:{name}" for name in MODELS)).ready()


@pytest.fixture
def page(chromium, service):
    with visiting(chromium, service.gateway) as page:
        yield page


@pytest.fixture
def go(service):
    """The file that Say waits for."""
    file = service.project / "go"
    yield file
    file.unlink(missing_ok=True)


def gateway_of(service):
    """The process of the gateway that serves now."""
    (process,) = [one for one in family(service) if "gateway" in one.cmdline()]
    return process


def test_the_root_sends_browsers_to_the_page_and_tells_programs_the_routes(service):
    with httpx.Client(base_url=service.gateway, trust_env=False) as http:
        sent = http.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert (sent.status_code, sent.headers["location"]) == (303, "docs")
        assert http.get("/").json()["name"] == "dumbwaiter"
        assert http.get("/", headers={"accept": "application/json"}).status_code == 200


def test_the_page_shows_each_model_with_its_state_and_what_it_takes_and_gives(page):
    models = page.get_by_role("navigation", name="Models").get_by_role("button")
    models.first.wait_for()
    assert [text.split() for text in models.all_inner_texts()] == [
        [name, "ready"] for name in sorted(map(str.lower, MODELS))
    ]
    choose(page, "grey")
    page.get_by_text("Takes a picture, gives a picture.").wait_for()
    page.get_by_text("1 of 1 worker ready.").wait_for()


def test_an_uploaded_photograph_is_answered_with_a_picture_and_where_the_time_went(page, photograph):
    choose(page, "grey")
    page.get_by_label("Picture").set_input_files(photograph)
    ask(page)
    picture = answer(page).get_by_role("img", name="The model's answer")
    picture.wait_for()
    page.wait_for_function("image => image.naturalWidth === 451", arg=picture.element_handle())
    assert "device" in answer(page).get_by_role("list", name="Where the time went").inner_text()
    assert "--data-binary '@chelsea.jpg'" in page.locator(".curl pre").inner_text()


def test_the_curl_command_gives_what_the_page_gave(page, photograph):
    choose(page, "colours")
    page.get_by_label("Picture").set_input_files(photograph)
    ask(page)
    answer(page).get_by_role("row").first.wait_for()
    command = page.locator(".curl pre").inner_text()
    output = subprocess.run(["bash", "-c", command], cwd=photograph.parent, capture_output=True, timeout=30, check=True)
    assert b'"status":"succeeded"' in output.stdout


def test_a_picture_goes_with_other_values_and_by_curl_as_a_form(page, photograph):
    choose(page, "scale")
    page.get_by_label("image").set_input_files(photograph)
    page.get_by_label("factors, as JSON").fill("[0.5, 1.0]")
    page.get_by_label("title (optional)").fill('half; of "it"')
    ask(page)
    picture = answer(page).get_by_role("img", name="The model's answer")
    picture.wait_for()
    page.wait_for_function("image => image.naturalWidth === 226", arg=picture.element_handle())
    command = page.locator(".curl pre").inner_text()
    subprocess.run(["bash", "-c", command], cwd=photograph.parent, timeout=30, check=True)
    from PIL import Image

    with Image.open(photograph.parent / "answer.png") as half:
        assert half.size == (226, 150)


def test_labels_with_scores_come_as_bars(page, photograph):
    choose(page, "colours")
    page.get_by_label("Picture").set_input_files(photograph)
    ask(page)
    rows = answer(page).get_by_role("row")
    rows.first.wait_for()
    assert rows.count() == 3
    assert rows.first.inner_text().startswith("red")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(page, photograph, way):
    choose(page, "grey")
    page.evaluate(
        """([way, data]) => {
          const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
          const files = new DataTransfer();
          files.items.add(new File([bytes], "brought.jpg", { type: "image/jpeg" }));
          const place = way === "drop" ? document.querySelector(".drop") : document.body;
          place.dispatchEvent(way === "drop"
            ? new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: files, bubbles: true, cancelable: true }));
        }""",
        [way, base64.b64encode(photograph.read_bytes()).decode()],
    )
    page.get_by_text("brought.jpg, ").wait_for()
    ask(page)
    answer(page).get_by_role("img").wait_for()


def test_text_goes_and_comes_by_the_keyboard_alone(page):
    choose(page, "echo")
    page.get_by_label("Text").focus()
    page.keyboard.type("by hand")
    for key in ("Tab", "ArrowRight", "ArrowLeft", "Tab", "Enter"):
        page.keyboard.press(key)
    answer(page).get_by_text("by hand").wait_for()


def test_markup_in_an_output_stays_text(page):
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    choose(page, "echo")
    page.get_by_label("Text").fill(hostile)
    for mode in ("Wait", "Later"):
        ask(page, mode)
        answer(page).get_by_text(hostile, exact=True).wait_for()
    assert answer(page).get_by_role("img").count() == 0


def test_several_values_have_a_field_each(page):
    choose(page, "add")
    page.get_by_label("first").fill("40")
    page.get_by_label("second").fill("2")
    page.get_by_label("negative (optional)").select_option("true")
    ask(page)
    answer(page).get_by_text("-42").wait_for()


def test_what_is_missing_is_said_before_anything_is_sent(page):
    choose(page, "add")
    page.get_by_label("first").fill("40")
    ask(page)
    page.get_by_text("second needs a number.").wait_for()
    assert page.evaluate("document.activeElement.type") == "number"


def test_chunks_are_seen_while_the_model_still_runs(page, go):
    choose(page, "say")
    page.get_by_label("Text").fill("wait for the end")
    ask(page, "Stream")
    answer(page).get_by_text("wait for the", exact=False).first.wait_for()
    assert page.get_by_role("button", name="Cancel").is_enabled()
    go.touch()
    answer(page).get_by_text("wait for the end").wait_for()
    answer(page).get_by_role("list", name="Where the time went").wait_for()


def test_later_looks_until_the_answer_is_there(page):
    choose(page, "say")
    page.get_by_label("Text").fill("one two")
    ask(page, "Later")
    answer(page).get_by_text("Answered in").wait_for()
    answer(page).get_by_text('"two"').wait_for()


def test_a_request_that_waits_in_the_queue_says_so_and_can_be_cancelled(page, service):
    with httpx.Client(base_url=service.gateway, trust_env=False) as http:
        headers = {"prefer": "respond-async", "content-type": "text/plain"}
        first = http.post("/v1/models/say/predictions", headers=headers, content="wait for ever").json()
        choose(page, "say")
        page.get_by_label("Text").fill("and then me")
        ask(page, "Later")
        answer(page).get_by_text("in the queue").wait_for()
        page.get_by_role("button", name="Cancel").click()
        answer(page).get_by_text("You canceled it.").wait_for()
        http.post(f"/v1/predictions/{first['id']}/cancel").raise_for_status()


@pytest.mark.parametrize("mode", ["Later", "Stream"])
def test_a_request_that_runs_can_be_cancelled(page, mode):
    choose(page, "say")
    page.get_by_label("Text").fill("wait for ever")
    ask(page, mode)
    answer(page).get_by_text("Running" if mode == "Later" else "wait for").first.wait_for()
    page.get_by_role("button", name="Cancel").click()
    answer(page).get_by_text("You canceled it.").wait_for()
    assert answer(page).get_by_role("alert").count() == 0
    assert page.get_by_role("button", name="Ask").is_enabled()


def test_a_wrong_input_shows_what_why_and_what_next(chromium, service, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with visiting(chromium, service.gateway, refused=[422]) as page:
        choose(page, "grey")
        page.get_by_label("Picture").set_input_files(broken)
        ask(page)
        shown = page.get_by_role("alert").filter(has_text="Why").inner_text()
    assert "bad-input" in shown
    assert "Change the input and ask again." in shown


def test_a_failure_of_the_model_names_the_command_that_shows_its_traceback(chromium, service):
    with visiting(chromium, service.gateway, refused=[500]) as page:
        choose(page, "echo")
        page.get_by_label("Text").fill("wrong")
        for mode in ("Wait", "Later"):
            ask(page, mode)
            shown = answer(page).get_by_role("alert")
            shown.get_by_text("this text is wrong").wait_for()
            command = shown.get_by_text("dumbwaiter dead-letters show echo").inner_text().split()
            letter = service.run(*command[1:])
            assert (letter.returncode, "ValueError: this text is wrong" in letter.stdout) == (0, True), command


def test_the_address_names_the_model_and_back_leads_to_the_one_before(chromium, service):
    def heading(name):
        page.get_by_role("heading", name=name, level=1).wait_for()

    with visiting(chromium, service.gateway) as page:
        heading("add")
        assert page.url.endswith("/docs#add")
        choose(page, "echo")
        choose(page, "grey")
        page.go_back()
        heading("echo")
        page.go_back()
        heading("add")
        page.go_forward()
        heading("echo")
        page.evaluate("window.location.hash = 'scale'")
        heading("scale")
        page.goto(f"{service.gateway}/docs#colours")
        page.reload()
        heading("colours")


def test_a_model_that_does_not_exist_is_said_so_and_the_one_that_is_shown_is_named(chromium, service):
    with visiting(chromium, service.gateway) as page:
        choose(page, "echo")
        page.evaluate("window.location.hash = 'nosuch%20one'")
        page.get_by_text("There is no model named “nosuch one”. This is echo.").wait_for()
        assert page.url.endswith("/docs#echo")
        choose(page, "grey")
        assert page.get_by_text("There is no model named").count() == 0
        page.goto(f"{service.gateway}/docs?anew#gone%")
        page.get_by_text("There is no model named “gone%”. This is add.").wait_for()


def test_each_value_says_what_it_is(page):
    choose(page, "add")
    labels = page.locator(".field label").all_inner_texts()
    assert labels == [
        "first number from -1000000000 to 1000000000",
        "second number from -1000000000 to 1000000000",
        "negative (optional) true or false",
    ]
    choose(page, "scale")
    assert page.locator(".field label").all_inner_texts() == [
        "image picture",
        "factors, as JSON list, each number from 0.1 to 2",
        "title (optional) text",
    ]


def test_on_a_narrow_screen_one_sees_that_more_models_follow(chromium, service):
    with visiting(chromium, service.gateway) as page:
        page.set_viewport_size({"width": 390, "height": 800})
        first, *_, last = sorted(map(str.lower, MODELS))
        choose(page, first)
        fading = page.locator("#models.more")
        fading.wait_for()
        assert "gradient" in fading.evaluate("list => getComputedStyle(list).maskImage")
        page.goto(f"{service.gateway}/docs?narrow#{last}")
        page.get_by_role("heading", name=last, level=1).wait_for()
        fading.wait_for(state="detached")
        right = "element => element.getBoundingClientRect().right"
        strip = page.locator("#models")
        assert strip.locator("li").last.evaluate(right) <= strip.evaluate(right)


def test_a_model_that_is_ready_is_opened_first(chromium, tmp_path):
    shutil.copy(Path(__file__).with_name("tried_models.py"), tmp_path / "tried.py")
    with starting(tmp_path) as start:
        start("absent=tried.py:Echo").ready().stop()
        service = start("tried.py:Echo").ready()
        with visiting(chromium, service.gateway) as page:
            page.get_by_role("heading", name="echo", level=1).wait_for()
            names = page.get_by_role("navigation", name="Models").get_by_role("button").all_inner_texts()
            assert [name.split()[0] for name in names] == ["absent", "echo"]


def test_with_keys_the_page_asks_for_one_and_keeps_it_nowhere(chromium, tmp_path):
    shutil.copy(Path(__file__).with_name("tried_models.py"), tmp_path / "tried.py")
    words = run_in(tmp_path, "keys", "create", "--tenant", "people").stdout.split()
    with starting(tmp_path) as start:
        (token,) = [word for word in words if word.startswith("dw_")]
        service = start("tried.py:Echo", DUMBWAITER_GATEWAY__AUTH="on").ready()
        with visiting(chromium, service.gateway, refused=[401]) as page:
            page.get_by_label("API key").fill("dw_wrong_wrong")
            page.get_by_role("button", name="Use this key").click()
            refusal = page.get_by_role("main").get_by_role("alert")
            refusal.get_by_text("not valid").wait_for()
            assert "401" in refusal.inner_text()
            page.get_by_label("API key").fill(token)
            page.get_by_role("button", name="Use this key").click()
            choose(page, "echo")
            page.get_by_label("Text").fill("let in")
            ask(page)
            answer(page).get_by_text("let in").wait_for()
            run_in(tmp_path, "keys", "revoke", token)
            refused = answer(page).get_by_role("alert").get_by_text("unknown-api-key")
            for _ in range(40):  # gateways read the keys every few seconds
                ask(page)
                page.get_by_role("button", name="Ask").and_(page.locator(":enabled")).wait_for()
                if refused.count():
                    break
                page.wait_for_timeout(250)
            refused.wait_for()
            assert page.get_by_label("Text").input_value() == "let in"
            assert token not in page.content()
            assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


@pytest.mark.parametrize("mode", ["Later", "Stream"])
def test_what_was_accepted_is_waited_for_while_the_gateway_is_away(chromium, service, go, mode):
    with visiting(chromium, service.gateway, refused=[502], away=True) as page:
        choose(page, "say")
        page.get_by_label("Text").fill("wait for the end")
        ask(page, mode)
        answer(page).get_by_text("Running" if mode == "Later" else "wait for the").first.wait_for()
        gateway_of(service).kill()
        page.context.set_offline(True)
        answer(page).get_by_text("No answer from the gateway; asking again").wait_for()
        assert answer(page).get_by_role("alert").count() == 0
        go.touch()
        page.context.set_offline(False)
        answer(page).get_by_text("Answered in").wait_for()
        # Later shows the stream's outputs as one list.
        shown = answer(page).locator("pre.output, pre.code").inner_text()
        assert [shown.count(word) for word in ("wait", "for", "the", "end")] == [1, 1, 1, 1]


@pytest.mark.parametrize("mode", ["Later", "Stream"])
def test_what_was_accepted_survives_the_page_and_is_found_again_by_its_address(chromium, service, go, mode):
    with visiting(chromium, service.gateway) as page:
        choose(page, "say")
        page.get_by_label("Text").fill("wait for the end")
        ask(page, mode)
        answer(page).get_by_text("Running" if mode == "Later" else "wait for the").first.wait_for()
        address = page.url
    with visiting(chromium, service.gateway) as page:
        page.goto(f"{service.gateway}/docs?again{address[address.index('#') :]}")
        answer(page).get_by_text("wait for the").first.wait_for()
        go.touch()
        said = answer(page).get_by_text("wait for the end", exact=True)
        said.wait_for()
        page.reload()
        said.wait_for()
        choose(page, "echo")
        assert page.url.endswith("#echo")
        page.go_back()
        said.wait_for()


def test_an_id_in_the_address_that_nobody_knows_is_said_so(chromium, service):
    with visiting(chromium, service.gateway, refused=[404]) as page:
        page.goto(f"{service.gateway}/docs?unknown#echo/nosuchid")
        page.get_by_role("heading", name="echo", level=1).wait_for()
        shown = answer(page).get_by_role("alert")
        shown.wait_for()
        assert "unknown-prediction" in shown.inner_text()
        assert "Check the id" in shown.inner_text()
        page.get_by_label("Text").fill("something else")
        ask(page)
        answer(page).get_by_text("something else").wait_for()
        assert page.url.endswith("#echo")
