"""Inputs that are about as large are of one bucket, whatever holds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dumbwaiter.models.arguments import Arguments
from dumbwaiter.worker.shape_buckets import bucket_of


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        (np.zeros((1000, 1000), dtype=np.float32), "2^22"),
        (torch.zeros(1024, 1024, dtype=torch.float16), "2^21"),
        (Image.new("RGB", (640, 480)), "2^20"),
        (Image.new("L", (640, 480)), "2^19"),
        ("a sentence of thirty-three letters", "2^6"),
        (b"12345678", "2^3"),
        ("", "2^0"),
        (Arguments([np.zeros(1024, dtype=np.uint8)], {"prompt": "a cat", "steps": 30}), "2^11"),
        (Arguments([], {"steps": 30}), "any"),
        ({"size": 2**30}, "any"),
        ([1.0, 2.0], "any"),
    ],
)
def test_an_input_is_as_large_as_its_bytes_once_decoded(value, bucket):
    assert bucket_of([value]) == bucket


def test_a_batch_is_where_its_largest_input_is():
    assert bucket_of(["soup", b"x" * 1000, "pie"]) == "2^10"
    assert bucket_of([{}, b"x" * 1000]) == "2^10"


@given(st.integers(min_value=1, max_value=100_000))
def test_a_bucket_holds_at_most_twice_its_smallest(nbytes):
    exponent = int(bucket_of([bytes(nbytes)]).removeprefix("2^"))
    assert 2**exponent // 2 < nbytes <= 2**exponent
