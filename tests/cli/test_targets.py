"""[NAME=]MODULE:CLASS and its relatives."""

from __future__ import annotations

import click
import pytest

from dumbwaiter.cli.targets import resolve, split_argument
from dumbwaiter.errors import ConfigError


@pytest.mark.parametrize(
    ("argument", "name", "target"),
    [
        ("network:Infer", "infer", "network:Infer"),
        ("cats=network:Infer", "cats", "network:Infer"),
        ("cats=a/b/network.py:Infer", "cats", "a/b/network.py:Infer"),
        ("package.network:Outer.Inner", "inner", "package.network:Outer.Inner"),
        ("cats", "cats", None),
    ],
)
def test_the_name_defaults_to_that_of_the_class_in_lower_case(argument, name, target):
    assert split_argument(argument) == (name, target)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("network.py", "names no class"),
        ("folder/network", "names no class"),
        ("cats=network", "names no class"),
        ("network:Infer=cats", "the name comes first; write NAME=MODULE:CLASS, here cats=network:Infer"),
        ("../x=network:Infer", "cannot name a model"),
        ("=network:Infer", "cannot name a model"),
        ("a b=network:Infer", "cannot name a model"),
    ],
)
def test_a_wrong_argument_says_how_to_write_it(argument, words):
    with pytest.raises(click.UsageError, match=words):
        split_argument(argument)


def test_a_module_is_imported_from_the_project(tmp_path):
    assert resolve("network:Infer", tmp_path) == ("network:Infer", tmp_path)


def test_a_file_is_imported_from_where_it_lies(tmp_path):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "network.py").touch()
    assert resolve("examples/network.py:Infer", tmp_path) == ("network:Infer", tmp_path / "examples")
    assert resolve(f"{tmp_path}/examples/network.py:Infer", tmp_path / "x") == ("network:Infer", tmp_path / "examples")


def test_a_file_within_a_package_is_imported_as_part_of_it(tmp_path):
    folder = tmp_path / "lab" / "vision"
    folder.mkdir(parents=True)
    for file in (tmp_path / "lab" / "__init__.py", folder / "__init__.py", folder / "network.py"):
        file.touch()
    assert resolve("lab/vision/network.py:Infer", tmp_path) == ("lab.vision.network:Infer", tmp_path)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nope.py:Infer", "no Python file"),
        ("a-b:Infer", "cannot name a module"),
        ("network:1nfer", "cannot name a class"),
        ("network:", "cannot name a class"),
        (":Infer", "cannot name a module"),
    ],
)
def test_a_wrong_target_says_what_is_wrong(tmp_path, target, words):
    with pytest.raises(ConfigError, match=words):
        resolve(target, tmp_path)
