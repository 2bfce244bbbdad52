"""Client: for ordinary code, from any thread, and it always comes back."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from dumbwaiter import Client
from dumbwaiter.errors import (
    BadInputError,
    BlobError,
    BrokerClosedError,
    BrokerUnavailableError,
    ConfigError,
    PredictionError,
    PredictionTimeoutError,
    QueueNotFoundError,
)
from dumbwaiter.message import Message


@pytest.fixture
def client(service):
    with Client(service.url, blobs=service.blobs, claim_threshold=1000) as client:
        yield client


def waiting(client):
    return client._async._door._asker.waiting()


def client_threads():
    return [thread for thread in threading.enumerate() if thread.name == "dumbwaiter-client"]


@pytest.fixture
def interrupt(service):
    """Call something that waits; press Ctrl-C once it does, and *count* requests wait in ``silent``."""
    threads = []
    # Under nohup, or in the background of a script, it is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def during(call, count):
        def press():
            service.until_waiting(count)
            service.until(lambda: "_result_of" in functions_of_the_main_thread())
            # Python may miss a signal that comes while it is about to wait for a lock; people press again.
            os.kill(os.getpid(), signal.SIGINT)
            while not has_left.wait(5.0):
                os.kill(os.getpid(), signal.SIGINT)

        has_left = threading.Event()
        threads.append(threading.Thread(target=press))
        threads[-1].start()
        try:
            call()
        finally:
            has_left.set()

    yield during
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGINT, before)


def functions_of_the_main_thread():
    """Their names, from the outermost in, if it waits for another thread; none otherwise."""
    frame = sys._current_frames()[threading.main_thread().ident]
    names = [one.name for one in traceback.extract_stack(frame)]
    return names if names[-1] == "wait" else []


@pytest.mark.parametrize("value", ["soup", b"\x00\xff", {"a": [1, None]}, 7])
def test_a_value_goes_to_the_model_and_its_output_comes_back(client, value):
    assert client.predict("echo", value) == value


def test_arrays_and_images_keep_their_shape(client):
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert client.predict("echo", array).tolist() == array.tolist()
    assert client.predict("echo", Image.new("L", (4, 3), 9)).size == (4, 3)


def test_values_are_encoded_and_decoded_in_the_calling_thread(client, workplaces):
    assert client.predict("echo", Image.new("L", (4, 3), 9)).size == (4, 3)
    assert workplaces["sent"] == workplaces["got"] == [threading.current_thread()]


def test_a_large_answer_without_a_blob_store_says_what_to_give_the_client(service):
    body = b"\x00" * 200_000
    with Client(service.url) as client:
        handle = client.submit("echo", body)
        for call in (
            lambda: client.predict("echo", body),
            lambda: handle.result(20),
            lambda: handle.result(20),
            lambda: next(client.map("echo", [body])),
        ):
            with pytest.raises(BlobError, match=r"lies in the blob store; give this client.* blobs='file:"):
                call()
        assert client.predict("echo", b"small") == b"small"


def test_errors_are_raised_where_the_call_was_made(client):
    with pytest.raises(PredictionError, match="model-error: I do not like this one"):
        client.predict("fail", 1)
    with pytest.raises(QueueNotFoundError, match="no queue named 'nobody'"):
        client.predict("nobody", 1)
    with pytest.raises(BadInputError, match="this input cannot be sent"):
        client.predict("echo", object())
    with pytest.raises(PredictionTimeoutError, match="from 'silent' within"):
        client.predict("silent", 1, timeout=0.05)


def test_a_submitted_request_is_answered_through_its_handle_as_often_as_asked(client, service):
    handle = client.submit("silent", [1])
    assert not handle.done()
    with pytest.raises(PredictionTimeoutError, match=handle.id):
        handle.result(0.02)
    service.answer_silent()
    assert handle.result(20) == [1]
    assert handle.done()
    assert handle.result() == [1]
    assert handle.message(1).correlation_id == handle.id


def test_a_kept_result_is_there_for_every_client(client, service):
    handle = client.submit("echo", b"\x00" * 200_000, keep=True)
    with Client(service.url, blobs=service.blobs) as another:
        assert another.result(handle.id, timeout=20) == b"\x00" * 200_000
    assert len(handle.result(20)) == 200_000
    assert handle.done()
    with pytest.raises(PredictionTimeoutError, match="no result of 'never'"):
        client.result("never", timeout=0.02)


def test_messages_made_by_hand_go_as_they_are(client):
    assert client.predict_message("echo", Message(id="m1", body=b"raw")).correlation_id == "m1"
    assert client.submit_message("echo", Message(id="m2", body=b"raw", content_type="x/y")).result(20) == b"raw"


def test_many_threads_may_share_one_client(client):
    def ask(thread):
        return [client.predict("echo", [thread, number]) for number in range(25)]

    with ThreadPoolExecutor(8) as threads:
        outputs = list(threads.map(ask, range(8)))
    assert outputs == [[[thread, number] for number in range(25)] for thread in range(8)]
    assert len(client_threads()) == 1


def test_two_threads_may_wait_on_one_handle(client):
    handle = client.submit("echo", b"\x00" * 200_000)
    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(handle.result, 20) for _ in range(4)]
        assert {len(result.result()) for result in results} == {200_000}


def test_a_handle_may_be_forgotten_in_any_thread(client, service):
    handle = client.submit("silent", 1)
    assert waiting(client) == {"silent"}
    del handle
    gc.collect()
    assert waiting(client) == set()


def test_ctrl_c_while_waiting_gives_the_request_up_and_the_client_lives_on(client, service, interrupt):
    with pytest.raises(KeyboardInterrupt):
        interrupt(lambda: client.predict("silent", 1), 1)
    service.until(lambda: waiting(client) == set())
    assert client.predict("echo", 2) == 2


def test_ctrl_c_while_waiting_on_a_handle_leaves_the_request_alone(client, service, interrupt):
    handle = client.submit("silent", 1)
    with pytest.raises(KeyboardInterrupt):
        interrupt(handle.result, 1)
    service.answer_silent()
    assert handle.result(20) == 1


def test_ctrl_c_in_the_middle_of_a_map_gives_up_all_that_is_under_way(client, service, interrupt):
    with pytest.raises(KeyboardInterrupt):
        interrupt(lambda: list(client.map("silent", range(5), in_flight=5)), 5)
    service.until(lambda: waiting(client) == set())


@pytest.mark.parametrize("verb", ["predict", "handle", "kept", "map"])
def test_close_while_another_thread_waits_tells_it(service, verb):
    client = Client(service.url, blobs=service.blobs)
    calls = {
        "predict": lambda: client.predict("silent", 1),
        "handle": lambda: client.submit("silent", 1).result(),
        "kept": lambda: client.submit("silent", 1, keep=True).result(),
        "map": lambda: list(client.map("silent", range(3), in_flight=1)),
    }
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(calls[verb])
        service.until_waiting(1)
        client.close()
        with pytest.raises(BrokerClosedError, match="closed"):
            call.result(10)
    assert client_threads() == []


def test_close_while_many_threads_ask_leaves_none_of_them_waiting(service):
    for _ in range(5):
        client = Client(service.url)

        def ask(client=client):
            asked = 0
            try:
                while True:
                    client.predict("echo", asked)
                    asked += 1
            except BrokerClosedError:
                return asked

        with ThreadPoolExecutor(4) as threads:
            calls = [threads.submit(ask) for _ in range(4)]
            count = len(service.requests)
            service.until(lambda count=count: len(service.requests) > count + 20)
            client.close()
            assert sum(call.result(10) for call in calls) > 0


def test_a_client_that_is_closed_says_so_and_its_thread_is_gone(service):
    client = Client(service.url, blobs=service.blobs)
    assert client_threads() == [], "it starts with the first request"
    handle = client.submit("echo", 1)
    assert len(client_threads()) == 1
    client.close()
    client.close()
    assert client_threads() == []
    for call in (
        lambda: client.predict("echo", 1),
        lambda: client.submit("echo", 1),
        lambda: client.result("x"),
        lambda: list(client.map("echo", [1])),
        lambda: handle.result(1),
        handle.done,
        client.__enter__,
    ):
        with pytest.raises(BrokerClosedError, match="this client is closed"):
            call()


def test_a_client_that_was_never_used_closes_quietly(service):
    Client(service.url).close()
    with Client(service.url):
        pass
    assert client_threads() == []


def test_a_broker_that_cannot_be_opened_leaves_no_thread_behind_and_may_be_tried_again(tmp_path):
    folder = tmp_path / "state"
    folder.write_text("a file where the folder should be")
    client = Client(f"sqlite://{folder}/queue.db")
    for _ in range(2):
        with pytest.raises(BrokerUnavailableError, match=r"queue\.db"):
            client.predict("echo", 1)
        assert client_threads() == []
    folder.unlink()
    with pytest.raises(QueueNotFoundError, match="echo"):
        client.predict("echo", 1)
    client.close()


def test_a_url_that_names_no_broker_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'carrier-pigeon:' names neither a gateway"), Client("carrier-pigeon:"):
        pass
    with pytest.raises(ConfigError, match="no blob store for 'attic'"):
        Client("memory:", blobs="attic")
    assert client_threads() == []


def test_a_broker_that_fails_to_close_does_not_keep_the_thread(service):
    client = Client(service.url)
    client.predict("echo", 1)

    async def refuse():
        raise BrokerUnavailableError("disk full")

    client._async._door._stack.push_async_callback(refuse)
    with pytest.raises(BrokerUnavailableError, match="disk full"):
        client.close()
    assert client_threads() == []
