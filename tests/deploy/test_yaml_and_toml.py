"""What is written reads as what was meant, whatever it holds."""

from __future__ import annotations

import tomllib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.deploy import toml
from dumbwaiter.deploy import yaml as ours

# Kubernetes' own objects are JSON; control characters have no place in them.
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=30) | st.sampled_from(
    [
        "",
        "yes",
        "null",
        "1",
        "1.0",
        "0x1f",
        "- a",
        "a: b",
        "#",
        "a #b",
        "'",
        '"',
        "{{",
        "*",
        "&a",
        "!x",
        "2026-01-01",
        "~",
    ]
)
blocks = st.lists(texts, min_size=2, max_size=4).map(lambda lines: "\n".join(lines) + "\n")
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts | blocks
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)


@given(st.dictionaries(texts, trees, min_size=1, max_size=5))
def test_an_object_reads_as_it_was(tree):
    assert yaml.safe_load(ours.document(tree)) == tree


@given(st.dictionaries(texts, trees, min_size=1, max_size=5), texts)
def test_notes_change_nothing(tree, note):
    paths = list(_paths(tree, ()))
    assert yaml.safe_load(ours.document(tree, dict.fromkeys(paths, note))) == tree


def _paths(value, path):
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from _paths(one, (*path, key))


def test_a_note_stands_above_its_place():
    text = ours.document({"a": {"b": 1, "c": [{"d": 2}]}}, {("a", "b"): "why b", ("a", "c", 0, "d"): "why d"})
    assert text == "a:\n  # why b\n  b: 1\n  c:\n  # why d\n  - d: 2\n"


def test_a_file_in_a_config_map_can_be_read_by_people():
    assert ours.document({"data": {"x.toml": "a = 1\n\n[b]\nc = 2\n"}}) == (
        "data:\n  x.toml: |\n    a = 1\n\n    [b]\n    c = 2\n"
    )


toml_texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
plain = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | toml_texts
inside = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(toml_texts, inner, max_size=3), max_leaves=10
)


@given(st.dictionaries(toml_texts, inside, max_size=6))
def test_settings_read_as_they_were(tree):
    assert tomllib.loads(toml.document(tree)) == tree


def test_settings_can_be_read_by_people():
    tree = {"a": 1, "b": {"c": "x", "d": {"e": [1, 2]}}, "f": {"Text.Embedding": {"g": 0.5}}, "h": {}}
    assert toml.document(tree) == (
        'a = 1\n\n[b]\nc = "x"\n\n[b.d]\ne = [1, 2]\n\n[f."Text.Embedding"]\ng = 0.5\n\n[h]\n'
    )


@pytest.mark.parametrize("text", ["1e3", "1E-3", ".5", "1.", "0o17", "0x1F", "y", "N", "+1e9"])
def test_what_another_reader_takes_for_a_number_or_a_truth_value_is_quoted(text):
    assert ours.document({"a": text, text: 1}) == f"a: '{text}'\n'{text}': 1\n"
