"""What is printed goes where it always went, and to whoever's input runs alone."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence

import pytest

from dumbwaiter.worker.interrupting import Interrupter
from dumbwaiter.worker.pipe import Progress
from dumbwaiter.worker.reporting import LOG_NBYTES, HeardStream, Reporter, first_nbytes


class Desk:
    """A reporter, and what it said."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str, bytes]] = []
        self.reporter = Reporter(self.send, Interrupter())

    def send(self, progress: Progress, bodies: Sequence[bytes]) -> None:
        for report, body in zip(progress.reports, bodies or [b""] * len(progress.reports), strict=True):
            self.said.append((report.slot, report.event, body))

    @property
    def text(self) -> str:
        return b"".join(body for _, event, body in self.said if event == "log").decode()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_lines_are_said_as_they_end_and_the_rest_when_the_input_is_done(desk: Desk) -> None:
    desk.reporter.listen(3)
    desk.reporter.hear("one ")
    assert desk.said == []
    desk.reporter.hear("line\nand the ")
    assert desk.said == [(3, "log", b"one line\n")]
    desk.reporter.hear("rest")
    desk.reporter.stop_listening()
    assert desk.text == "one line\nand the rest"


def test_what_is_printed_between_two_inputs_is_nobodys(desk: Desk) -> None:
    desk.reporter.hear("before\n")
    desk.reporter.listen(3)
    desk.reporter.stop_listening()
    desk.reporter.hear("after\n")
    assert desk.said == []


def test_what_another_thread_prints_is_nobodys(desk: Desk) -> None:
    desk.reporter.listen(3)
    thread = threading.Thread(target=desk.reporter.hear, args=("decoding somebody else's picture\n",))
    thread.start()
    thread.join()
    desk.reporter.stop_listening()
    assert desk.said == []


@pytest.mark.parametrize("text", ["x" * 200_000, "é" * 70_000, "🍲" * 40_000, "line\n" * 30_000])
def test_no_more_than_the_limit_is_said_in_whole_characters(desk: Desk, text: str) -> None:
    desk.reporter.listen(3)
    for place in range(0, len(text), 1000):
        desk.reporter.hear(text[place : place + 1000])
    desk.reporter.stop_listening()
    assert LOG_NBYTES - 1100 * 4 < len(desk.text.encode()) <= LOG_NBYTES
    assert desk.text.count("only the first 64 KiB") == 1


def test_text_that_is_not_unicode_can_be_said(desk: Desk) -> None:
    desk.reporter.listen(3)
    desk.reporter.hear("menu\udce9.jpg\n")
    assert desk.text == "menu\\udce9.jpg\n"


def test_a_destructor_that_prints_while_a_frame_is_sent_does_not_send_into_it(desk: Desk) -> None:
    said: list[str] = []

    def send(progress: Progress, bodies: Sequence[bytes]) -> None:
        assert not said, "a frame within a frame"
        said.append("frame")
        desk.reporter.hear("goodbye\n")
        said.pop()
        desk.send(progress, bodies)

    desk.reporter._send = send
    desk.reporter.listen(3)
    desk.reporter.hear("hello\n")
    desk.reporter.stop_listening()
    assert desk.text == "hello\ngoodbye\n"


def test_a_consumer_that_is_gone_does_not_break_the_model(desk: Desk) -> None:
    def send(progress: Progress, bodies: Sequence[bytes]) -> None:
        raise BrokenPipeError

    desk.reporter._send = send
    desk.reporter.listen(3)
    desk.reporter.hear("hello\n")
    desk.reporter.chunk(3, "text/plain", b"x")
    desk.reporter.stop_listening()


def test_a_heard_stream_is_the_stream_that_it_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    heard: list[str] = []
    monkeypatch.setattr(HeardStream, "ear", staticmethod(heard.append))
    before = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    stream = HeardStream.over(before)
    print("soup", "é", file=stream)
    stream.writelines(["a", "b\n"])
    stream.buffer.write(b"bytes")
    stream.flush()
    assert raw.getvalue().decode() == "soup é\nab\nbytes"
    assert "".join(heard) == "soup é\nab\n"
    assert (stream.encoding, stream.errors, stream.line_buffering) == ("utf-8", "backslashreplace", True)


def test_text_is_cut_between_characters() -> None:
    assert first_nbytes("aé".encode(), 2) == b"a"
    assert first_nbytes("aé".encode(), 3) == "aé".encode()
    assert first_nbytes("🍲".encode(), 3) == b""
