"""Finding the user's class, and errors that say why not."""

from __future__ import annotations

import sys

import pytest

from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models.importing import explain, headline, import_class


def complaint(target, folder):
    with pytest.raises(ModelLoadError) as caught:
        import_class(target, folder)
    return str(caught.value)


def test_a_class_is_found_in_the_project_folder(project):
    folder = project("class Infer: pass")
    assert import_class("network:Infer", folder).__name__ == "Infer"
    assert import_class("network:Infer", str(folder)).__module__ == "network"
    assert sys.path[0] == str(folder)


def test_a_class_is_found_in_a_package_of_the_project(tmp_path):
    (tmp_path / "kitchen_models" / "deep").mkdir(parents=True)
    (tmp_path / "kitchen_models" / "__init__.py").touch()
    (tmp_path / "kitchen_models" / "deep" / "__init__.py").write_text("from ..parts import Infer")
    (tmp_path / "kitchen_models" / "parts.py").write_text("class Infer: pass")
    assert import_class("kitchen_models.deep:Infer", tmp_path).__module__ == "kitchen_models.parts"


def test_the_project_own_module_is_served_and_not_one_of_that_name_imported_from_elsewhere(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "network.py").write_text(f"class Infer: place = {name!r}")
    assert import_class("network:Infer", tmp_path / "one").place == "one"
    assert import_class("network:Infer", tmp_path / "two").place == "two"


def test_a_module_is_imported_once(project):
    folder = project("class Infer: pass")
    assert import_class("network:Infer", folder) is import_class("network:Infer", folder)


@pytest.mark.parametrize(
    "target", ["", "network", "network:", ":Infer", "net-work:Infer", "network:In fer", "a/b.py:C"]
)
def test_a_target_that_names_no_class_says_how_to_write_one(target, tmp_path):
    assert complaint(target, tmp_path) == f"{target!r} names no class; write MODULE:CLASS, for example network:Infer"


def test_a_project_folder_that_does_not_exist_is_named(tmp_path):
    said = complaint("network:Infer", tmp_path / "nowhere")
    assert said == f"cannot load 'network:Infer': the project folder {tmp_path}/nowhere does not exist"


def test_a_module_that_does_not_exist_is_named_with_what_there_is(project, tmp_path):
    assert complaint("network:Infer", tmp_path).startswith(
        f"cannot load 'network:Infer': no module 'network' in {tmp_path}; there are no Python files; "
    )
    folder = project("class Infer: pass")
    said = complaint("networkk:Infer", folder)
    assert said.endswith(f"no module 'networkk' in {folder}; it has network; did you mean 'network'?")
    for index in range(12):
        (folder / f"a{index:02}.py").touch()
    assert "a08, a09 and 3 more" in complaint("networkk:Infer", folder)


def test_a_module_that_a_package_lacks_is_named(tmp_path):
    (tmp_path / "kitchen_models").mkdir()
    (tmp_path / "kitchen_models" / "__init__.py").touch()
    said = complaint("kitchen_models.cats:Infer", tmp_path)
    assert "no module 'kitchen_models.cats' in " in said
    assert "it has kitchen_models" in said


def test_a_module_named_as_one_of_python_own_is_to_be_renamed(tmp_path):
    (tmp_path / "queue.py").write_text("class Infer: pass")
    assert complaint("queue:Infer", tmp_path) == (
        "cannot load 'queue:Infer': 'queue' is a module of Python's own; rename the project's file"
    )


def test_a_class_that_does_not_exist_is_named_with_what_there_is(project):
    folder = project(
        """
        from pathlib import Path

        class Infer: pass
        class Other: pass
        model = Infer()
        """
    )
    said = complaint("network:Infr", folder)
    assert said == (
        "cannot load 'network:Infr': no class 'Infr' in network; it has Infer, Other; did you mean 'Infer'?"
    )
    assert complaint("network:model", folder) == "cannot load 'network:model': model is a Infer, not a class"


def test_a_module_without_classes_says_so(project):
    assert complaint("network:Infer", project("x = 1")).endswith("no class 'Infer' in network; it has no classes")


def test_what_the_module_imports_and_is_not_installed_is_named(project):
    said = complaint("network:Infer", project("import a_package_that_nobody_has\nclass Infer: pass"))
    first, _, trace = said.partition("\n")
    assert first == ("cannot load 'network:Infer': it imports 'a_package_that_nobody_has', which is not installed here")
    assert 'network.py", line 1, in <module>' in trace
    assert "importlib" not in trace


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("class Infer(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("from os import nothing", "ImportError: cannot import name 'nothing' from 'os'"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two"),
        ("raise ImportError", "ImportError"),
    ],
)
def test_a_module_that_does_not_import_says_what_it_raised_in_the_first_line(project, code, line):
    first, _, trace = complaint("network:Infer", project(code)).partition("\n")
    assert first.startswith(f"cannot load 'network:Infer': importing it raised {line}")
    assert line in trace


def test_a_module_that_failed_is_imported_anew_the_next_time(project):
    complaint("network:Infer", project("1 / 0"))
    assert import_class("network:Infer", project("class Infer: answer = 42")).answer == 42


def test_an_interrupt_is_not_swallowed(project):
    with pytest.raises(KeyboardInterrupt):
        import_class("network:Infer", project("raise KeyboardInterrupt"))


def test_the_headline_is_the_error_and_not_the_notes_added_to_it():
    error = ValueError("the reason")
    error.add_note("a note")
    assert headline(error) == "ValueError: the reason"
    assert explain(error).endswith("ValueError: the reason\na note")
    assert headline(KeyError("x")) == "KeyError: 'x'"
    assert headline(ModelLoadError("x")) == "dumbwaiter.errors.ModelLoadError: x"


def test_the_colours_of_an_error_are_left_out():
    error = RuntimeError("\x1b[1mbold\x1b[0m words")
    assert headline(error) == "RuntimeError: bold words"
    assert explain(error) == "RuntimeError: bold words"


def test_the_first_line_of_a_load_error_holds_all_that_the_error_says():
    """torch's "Error(s) in loading state_dict:" names the missing keys on the lines after it."""
    error = RuntimeError('Error(s) in loading state_dict for Net:\n\tMissing key(s): "fc.weight". \n\tUnexpected: "x".')
    said = 'RuntimeError: Error(s) in loading state_dict for Net: Missing key(s): "fc.weight". Unexpected: "x".'
    assert headline(error) == said
