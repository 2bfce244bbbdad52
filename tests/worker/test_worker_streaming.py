"""What is told of a request while it runs: its start, the chunks of its output, what its model prints. If kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kitchen import QUEUE, SHOUT, Kitchen, kitchen

from dumbwaiter.blobs.events import Event, read_events
from dumbwaiter.blobs.local import LocalBlobStore
from dumbwaiter.blobs.results import has_result
from dumbwaiter.errors import BlobError
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

WORDS = """
import time
from collections.abc import Iterator
from pathlib import Path

GATE = Path(__file__).parent / "gate"

class Model:
    def __call__(self, text: str) -> Iterator[str]:
        for number, word in enumerate(text.split()):
            if number == 2:
                while not GATE.exists():
                    time.sleep(0.01)
            yield word.upper()
"""

GATED = """
    def __init__(self):
        import time
        from pathlib import Path
        while not (Path(__file__).parent / "gate").exists():
            time.sleep(0.01)
"""

CHATTY = """
import logging, sys, warnings

logging.basicConfig(format="%(message)s")

class Model:
    max_batch = 4

    def __call__(self, texts: list[str]) -> list[str]:
        print("cooking", texts[0])
        print("no end of a line", end="")
        print(" yet", file=sys.stderr)
        logging.warning("burnt é")
        if texts[0] == "long":
            print("é" * 100_000)
            print("and more")
        return texts
"""


async def test_chunks_are_there_as_they_are_yielded_and_the_output_is_the_list_of_them(tmp_path: Path) -> None:
    async with kitchen(tmp_path, WORDS) as it:
        await it.send("a b c d", "one")
        await eventually(lambda: _outputs(it, "one", 2))
        assert not await has_result(it.store, "one")
        (tmp_path / "gate").touch()
        assert (await it.result("one")).body == b'["A","B","C","D"]'
        events = await read_events(it.store, "one")
        assert [(event.event, event.data) for event in events] == [
            ("start", b"{}"),
            *[("output", letter) for letter in (b"A", b"B", b"C", b"D")],
        ]
        assert events[1].content_type == "text/plain; charset=utf-8"
        assert [event.id for event in events] == sorted(event.id for event in events)


async def test_a_request_whose_answer_is_not_kept_leaves_no_events(tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    async with kitchen(tmp_path, WORDS) as it:
        assert await it.output("a b c") == '["A","B","C"]'
        assert await it.store.list("events/") == []


async def test_what_a_model_prints_while_an_input_runs_alone_is_told_and_still_in_the_log(tmp_path, capfd) -> None:
    async with kitchen(tmp_path, CHATTY) as it:
        await it.send("soup", "one")
        await it.result("one")
        assert _printed(await read_events(it.store, "one")) == "cooking soup\nno end of a line yet\nburnt é\n"
    assert "cooking soup" in capfd.readouterr().err


async def test_what_is_printed_for_a_batch_of_several_is_nobodys(tmp_path: Path) -> None:
    code = CHATTY.replace("    max_batch = 4\n", f"    max_batch = 4\n{GATED}")
    async with kitchen(tmp_path, code, wait_ready=False) as it:
        await eventually(lambda: _exists(it))
        for name in ("soup", "pie"):
            await it.send(name, name)
        (tmp_path / "gate").touch()
        for name in ("soup", "pie"):
            assert (await it.result(name)).body == name.encode()
            assert [event.event for event in await read_events(it.store, name)] == ["start"]


async def test_what_is_printed_without_end_is_cut_between_two_characters(tmp_path: Path) -> None:
    async with kitchen(tmp_path, CHATTY) as it:
        await it.send("long", "one")
        await it.result("one")
        events = await read_events(it.store, "one")
        text = _printed(events)
        assert sum(len(event.data) for event in events if event.event == "log") <= 64 * 1024
        assert text.startswith("cooking long\n")
        assert text.endswith("[only the first 64 KiB of what is printed are kept]\n")
        assert "and more" not in text
        await it.send("soup", "two")
        await it.result("two")
        assert "cooking soup" in _printed(await read_events(it.store, "two")), "the limit is each request's own"


async def test_all_events_are_written_before_the_result(tmp_path: Path) -> None:
    store = SlowEvents(tmp_path / "blobs")
    (tmp_path / "gate").touch()
    async with kitchen(tmp_path, WORDS, store=store) as it:
        await it.send(" ".join("abcdefgh"), "one")
        await eventually(lambda: store.begun)
        store.go.set()
        await eventually(lambda: "results/one" in store.diary)
        places = [store.diary.index(key) for key in store.diary if key.startswith("events/one/")]
        assert max(places) < store.diary.index("results/one")
        outputs = [event for event in await read_events(it.store, "one") if event.event == "output"]
        assert [event.data.decode() for event in outputs] == list("ABCDEFGH")
        assert len(places) < 8, "chunks gather while a write is under way"


async def test_a_store_that_is_slow_with_one_requests_events_holds_up_no_other(tmp_path: Path) -> None:
    store = SlowEvents(tmp_path / "blobs")
    async with kitchen(tmp_path, SHOUT, store=store) as it:
        await it.send("soup", "one")
        await eventually(lambda: store.begun)
        assert await it.output("pie") == "PIE"
        assert not await has_result(store, "one")
        store.go.set()
        assert (await it.result("one")).body == b"SOUP"


async def test_a_store_that_takes_no_events_loses_them_and_not_the_answer(tmp_path: Path, caplog) -> None:
    store = SlowEvents(tmp_path / "blobs")
    store.full = True
    store.go.set()
    (tmp_path / "gate").touch()
    async with kitchen(tmp_path, WORDS, store=store) as it:
        await it.send("a b c", "one")
        assert (await it.result("one")).body == b'["A","B","C"]'
        assert "progress of one is lost" in caplog.text


async def test_a_store_that_hangs_with_events_delays_the_answer_and_no_more(tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr("dumbwaiter.worker.progress.WRITE_TIMEOUT", 0.2)
    store = SlowEvents(tmp_path / "blobs")  # which never goes on
    (tmp_path / "gate").touch()
    async with kitchen(tmp_path, WORDS, store=store) as it:
        await it.send("a b c", "one")
        assert (await it.result("one")).body == b'["A","B","C"]'
        assert "no answer from the blob store" in caplog.text


async def test_a_model_that_yields_faster_than_the_store_writes_is_held_up_and_not_called_hung(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("dumbwaiter.worker.progress.MOST_CHUNK_NBYTES", 100_000)
    code = """
        from collections.abc import Iterator
        from pathlib import Path

        class Model:
            def __call__(self, text: str) -> Iterator[bytes]:
                for number in range(40):
                    with (Path(__file__).parent / "yielded").open("a") as file:
                        file.write(".")
                    yield bytes([65 + number]) * 1_000_000
    """
    store = SlowEvents(tmp_path / "blobs")
    async with kitchen(tmp_path, code, store=store, timeout=1.0, max_deliveries=1) as it:
        await it.send("soup", "one")
        await eventually(lambda: it.consumer._keeper._deaf_since is not None)
        await asyncio.sleep(1.5)  # longer than the model's timeout
        assert len((tmp_path / "yielded").read_text()) < 40
        store.go.set()
        result = await it.result("one")
        assert result.type == "dumbwaiter.prediction.succeeded", result.body
        outputs = [event for event in await read_events(it.store, "one") if event.event == "output"]
        assert [event.data[:1] for event in outputs] == [bytes([65 + number]) for number in range(40)]


async def test_a_chunk_that_cannot_be_shown_costs_its_event_only(tmp_path: Path) -> None:
    code = """
        class Model:
            def __call__(self, text: str):
                yield "good"
                yield b"bytes"
    """
    async with kitchen(tmp_path, code) as it:
        await it.send("soup", "one")
        await it.result("one")
        kinds = [event.content_type for event in await read_events(it.store, "one") if event.event == "output"]
        assert kinds == ["text/plain; charset=utf-8", "application/octet-stream"]


async def test_a_second_attempt_sorts_behind_the_first(tmp_path: Path) -> None:
    code = """
        from pathlib import Path

        ONCE = Path(__file__).parent / "once"

        class Model:
            def __call__(self, text: str):
                yield "first" if not ONCE.exists() else "second"
                if not ONCE.exists():
                    ONCE.touch()
                    raise ValueError("the first time always fails")
    """
    async with kitchen(tmp_path, code) as it:
        await it.send("soup", "one")
        assert (await it.result("one")).body == b'["second"]'
        events = await read_events(it.store, "one")
        assert [event.data for event in events if event.event == "output"] == [b"first", b"second"]
        assert [event.event for event in events] == ["start", "output"] * 2


class SlowEvents(LocalBlobStore):
    """Keeps events waiting until *go* is set, and writes down the order of all that it wrote."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"file://{folder}", folder)
        self.go = asyncio.Event()
        self.begun = False
        self.full = False
        self.diary: list[str] = []

    async def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        if key.startswith("events/"):
            self.begun = True
            await self.go.wait()
            if self.full:
                raise BlobError("no space left on the device")
        await super().put(key, data, durable=durable)
        self.diary.append(key)

    async def create(self, key: str, data: bytes) -> None:
        await super().create(key, data)
        self.diary.append(key)


def _printed(events: list[Event]) -> str:
    return b"".join(event.data for event in events if event.event == "log").decode()


async def _outputs(it: Kitchen, id_: str, count: int) -> bool:
    return sum(event.event == "output" for event in await read_events(it.store, id_)) >= count


async def _exists(it: Kitchen) -> bool:
    return QUEUE in await it.broker.queues()
