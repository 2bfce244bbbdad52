"""Names of queues as a product takes them."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers.naming import physical, true_name
from dumbwaiter.message import MAX_QUEUE_NAME

LOWER = f"{string.ascii_lowercase}{string.digits}-"
WIDE = f"{string.ascii_letters}{string.digits}-_="
queue_names = st.from_regex(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_QUEUE_NAME - 1}}}", fullmatch=True)


def test_a_name_in_the_products_letters_stays_as_it_is():
    assert physical("resnet-50_v2", alphabet=WIDE, limit=80) == "resnet-50_v2"


def test_what_the_product_does_not_take_is_written_as_its_bytes():
    assert physical("a.b", alphabet=WIDE, limit=80) == "a=2eb"
    assert physical("A-b", alphabet=LOWER, limit=80) == "-41-2db"
    assert physical("é", alphabet=WIDE, limit=80) == "=c3=a9"


def test_a_suffix_stays_whole_where_the_name_is_cut():
    written = physical("x" * 100, alphabet=WIDE, limit=60, suffix="-dead")
    assert written.startswith("xxxx")
    assert written.endswith("-dead")
    assert len(written) == 60


def test_long_names_that_begin_alike_stay_two():
    one, two = (physical(f"{'x' * 200}{end}", alphabet=WIDE, limit=80) for end in "12")
    assert one != two


@given(queue_names, st.sampled_from([LOWER, WIDE]))
def test_every_name_comes_back(name, alphabet):
    written = physical(name, alphabet=alphabet, limit=1000)
    assert set(written) <= set(alphabet)
    assert true_name(written, alphabet=alphabet) == name


@given(st.text(max_size=200), st.integers(min_value=30, max_value=80))
def test_every_text_fits(name, limit):
    written = physical(name, alphabet=LOWER, limit=limit, suffix="-d")
    assert len(written) <= limit
    assert set(written) <= set(LOWER)


@given(st.lists(queue_names, min_size=2, max_size=2, unique=True))
def test_no_two_names_become_one(names):
    one, two = (physical(name, alphabet=LOWER, limit=40) for name in names)
    assert one != two


def test_what_was_cut_or_never_written_here_cannot_be_read_back():
    assert true_name(physical("x" * 200, alphabet=WIDE, limit=80), alphabet=WIDE) is None
    assert true_name("a=", alphabet=WIDE) is None
    assert true_name("a=ff", alphabet=WIDE) is None
