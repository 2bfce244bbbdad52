"""Compressed request bodies."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from dumbwaiter.gateway.oip.encodings import MOST_INFLATION, inflate

BODY = b"a tensor " * 100


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("GZIP ", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
    ],
)
def test_gzip_and_deflate_are_undone(encoding, body):
    assert inflate(encoding, body, limit=len(BODY)) == BODY


def test_a_bomb_is_refused_before_it_goes_off():
    bomb = zlib.compress(bytes(50_000_000), 9)
    assert "limit of 1000 bytes" in refusal(inflate, "deflate", bomb, limit=1000, status=413)
    assert len(inflate("deflate", bomb, limit=50_000_000)) <= MOST_INFLATION * len(bomb)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(junk=st.binary(max_size=40))
def test_what_is_damaged_cut_or_followed_by_more_is_refused(encoding, junk):
    whole = gzip.compress(BODY, mtime=0) if encoding == "gzip" else zlib.compress(BODY)
    for body in (junk, whole[: min(len(junk), len(whole) - 1)], whole + junk + b"x"):
        assert f"no sound {encoding}" in refusal(inflate, encoding, body, limit=10**6)


def test_other_encodings_are_refused():
    assert "'br'" in refusal(inflate, "br", b"", limit=9, status=415)
    assert refusal(inflate, "gzip, gzip", b"", limit=9, status=415)
