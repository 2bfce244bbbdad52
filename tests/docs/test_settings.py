"""The tables of docs/settings.md and the structs of dumbwaiter.config say the same, both ways."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from sessions import DOCS, blocks

from dumbwaiter.config import (
    TABLES,
    ModelSettings,
    Settings,
    load_settings,
    parse_duration,
    parse_size,
)

PAGE = DOCS / "settings.md"
STRUCTS = {"General": Settings, **{f"`[{name}]`": struct for name, struct in TABLES.items()}}
STRUCTS["`[models.NAME]`"] = ModelSettings
#: Tables have sections of their own, and the home is found out, not set.
NOT_SET = {*TABLES, "models", "home"}
_ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def rows(section: str) -> dict[str, tuple[str, str]]:
    """Type and default of each setting in the table below the heading *section*."""
    text = PAGE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return {name: (kind, default) for name, kind, default, _ in _ROW.findall(text)}


def value_of(kind: str, default: str) -> object:
    if default == "none":
        return None
    value = tomllib.loads(f"value = {default.strip('`')}")["value"]
    return {"duration": parse_duration, "size": parse_size}.get(kind, lambda plain: plain)(value)


@pytest.mark.parametrize("section", STRUCTS)
def test_the_table_and_the_struct_name_the_same_settings_with_the_same_defaults(section):
    struct = STRUCTS[section]
    told = {name: value_of(*row) for name, row in rows(section).items()}
    assert told == {field: getattr(struct(), field) for field in struct.__struct_fields__ if field not in NOT_SET}


def test_the_page_has_no_other_sections_of_settings():
    assert set(re.findall(r"^## (`\[.*\]`)$", PAGE.read_text(), re.MULTILINE)) == set(STRUCTS) - {"General"}


@pytest.mark.parametrize("section", STRUCTS)
def test_the_table_knows_durations_and_sizes(section):
    hints = msgspec.inspect.type_info(STRUCTS[section]).fields
    for field in hints:
        unit = (getattr(field.type, "extra", None) or {}).get("unit")
        if field.name not in NOT_SET:
            assert (rows(section)[field.name][0] in {"duration", "size"}) == (unit is not None), field.name
            assert unit in {None, rows(section)[field.name][0]}, field.name


def test_the_example_is_a_valid_file(tmp_path):
    (example,) = blocks(PAGE, "toml")
    file = Path(tmp_path / "dumbwaiter.toml")
    file.write_text(example.text)
    settings = load_settings(file, environ={})
    assert (settings.gateway.port, settings.gateway.body_limit) == (9000, 8 * 1024 * 1024)
    assert settings.models["infer"].weights == str(tmp_path / "weights.safetensors")
    assert settings.models["embedder"].parameters == {"normalize": True}
