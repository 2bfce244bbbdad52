"""The reference pages: what their terminals show is what the commands print."""

from __future__ import annotations

import pytest
from sessions import DOCS, blocks

PAGES = ["rest.md", "cli.md", "clients.md", "open-inference.md"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_the_page_do_what_it_shows(page, reader):
    assert reader.follow(DOCS / page) >= 5


def test_only_what_runs_until_it_is_stopped_is_left_out():
    left_out = [block.text for page in PAGES for block in blocks(DOCS / page) if not block.is_run]
    assert left_out == ["$ dumbwaiter gateway --port 8081\n$ dumbwaiter worker light:Shout\n$ dumbwaiter courier\n"]
