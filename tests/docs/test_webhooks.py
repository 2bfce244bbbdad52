"""The receivers that the page shows accept what a courier sends, and nothing else."""

from __future__ import annotations

import time

import pytest
from sessions import DOCS, blocks

from dumbwaiter.courier.posts import Post, signed
from dumbwaiter.signing import SigningKey

EXAMPLES = [block.text for block in blocks(DOCS / "webhooks.md", "python")]
SECRET = SigningKey(b"k" * 32).webhook_secret("acme")
BODY = b'{"id":"1"}'


def headers(now, secret=SECRET):
    return signed(Post(BODY, {"content-type": "application/json"}), secret=secret, id_="msg_1", now=now)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_accepts_ours_and_refuses_others_changed_and_old_ones(example):
    names = {}
    exec(example, names)
    verified = names["verified"]
    assert verified(SECRET, headers(time.time()), BODY) == BODY
    for secret, sent, body in (
        (SigningKey(b"x" * 32).webhook_secret("acme"), headers(time.time()), BODY),
        (SECRET, headers(time.time()), BODY + b" "),
        (SECRET, {**headers(time.time()), "webhook-id": "msg_2"}, BODY),
        (SECRET, headers(time.time() - 1000), BODY),
    ):
        with pytest.raises(Exception, match=r"not signed by us|too old|No matching signature|too old"):
            verified(secret, sent, body)


def test_there_is_one_with_a_library_and_one_without():
    assert [("standardwebhooks" in example) for example in EXAMPLES] == [True, False]
