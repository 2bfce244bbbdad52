"""The page for other languages: its curl examples run, and so does its TypeScript, where there is Node."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from sessions import DOCS, PORT, blocks, says

PAGE = DOCS / "other-languages.md"


@pytest.mark.timeout(240)
def test_the_examples_with_curl_do_what_the_page_shows(reader):
    assert reader.follow(PAGE) >= 8


@pytest.mark.timeout(240)
def test_the_typescript_does_what_the_page_shows(reader):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    sessions = [block.text for block in blocks(PAGE, "console")]
    shown = next(text for text in sessions if text.startswith("$ node"))
    reader.write("light.py", next(block for block in blocks(PAGE, "python") if "`light.py`" in block.before).text)
    reader.type(sessions[0].split("\n")[0].removeprefix("$ "), "…Ctrl-C stops it.")
    for block in blocks(PAGE, "typescript"):
        if block.is_run:
            name = re.search(r"`(\w+)\.mts`:$", block.before)[1]
            # Older Nodes read no TypeScript, and this is JavaScript too.
            text = block.text.replace(".mts", ".mjs").replace(PORT, reader.environment["DUMBWAITER_GATEWAY__PORT"])
            reader.write(f"{name}.mjs", text)
    ran = subprocess.run([node, "try.mjs"], cwd=reader.folder, capture_output=True, text=True, timeout=60, check=False)
    assert says(shown.partition("\n")[2], ran.stdout), ran.stdout + ran.stderr + reader.log()


def test_only_what_needs_other_packages_is_left_out():
    left_out = [block.text.split("\n")[0] for block in blocks(PAGE) if not block.is_run]
    assert left_out == ["$ node try.mts", 'import express from "express";']
