"""The pages about deploying say what to install first."""

from __future__ import annotations

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("page", "extra"), [("kubernetes", "deploy"), ("image", "deploy"), ("one-machine", "deploy"), ("keda", "scaler")]
)
def test_a_page_names_its_extra_before_its_first_command(page, extra):
    before = (ROOT / "docs" / f"{page}.md").read_text().partition("```")[0]
    assert f"PATH-TO-THE-CLONE[{extra}]" in before


def test_the_readme_names_the_extras_of_commands_and_all_of_them_are_some():
    (line,) = re.findall(r"In an environment of your own:.*?\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    for extra in ("deploy", "plan", "scaler"):
        assert f"`{extra}`" in line
        assert extra in EXTRAS
