"""The tutorial, followed to the letter: its files are written, its commands typed, its output compared."""

from __future__ import annotations

import pytest
from sessions import DOCS, blocks


@pytest.mark.timeout(240)
def test_the_tutorial_does_what_it_says(reader):
    assert reader.follow(DOCS / "tutorial.md") >= 15


def test_only_what_needs_torch_is_left_out():
    left_out = [block for block in blocks(DOCS / "tutorial.md") if not block.is_run]
    assert {block.before for block in left_out} == {"<!-- not run: needs torch and the weights -->"}
    assert all("infer" in block.text.lower() for block in left_out)
