"""Which packages an image gets, and in which versions."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest

from dumbwaiter.deploy.requirements import Installed, installed_here, requirements_of
from dumbwaiter.errors import ConfigError

HERE = {
    "dumbwaiter": Installed(
        "0.1.0",
        [
            "msgspec>=0.19",
            "redis[hiredis]>=6.2; extra == 'redis'",
            "pillow>=11; extra == 'image'",
            "numpy>=2; extra == 'numpy'",
        ],
        "/src/dumbwaiter",
    ),
    "msgspec": Installed("0.20.0"),
    "redis": Installed("7.1.0", ["hiredis>=3; extra == 'hiredis'", "tomli; python_version < '3'"]),
    "hiredis": Installed("3.2.1"),
    "pillow": Installed("11.3.0"),
    "scipy": Installed("1.16.0", ["numpy>=2"]),
    "numpy": Installed("2.3.0"),
    "pytest": Installed("8.3.0"),
    "pip": Installed("25.0"),
}


def pins(project, *extras, installed=HERE):
    return list(requirements_of(project, extras, installed).pins)


def test_a_requirement_brings_all_that_it_requires_in_the_versions_installed_here(tmp_path):
    (tmp_path / "requirements.txt").write_text("# for the model\nscipy>=1.10  # signals\n\n")
    assert pins(tmp_path, "redis") == [
        *("dumbwaiter[redis]==0.1.0", "hiredis==3.2.1", "msgspec==0.20.0", "numpy==2.3.0", "redis==7.1.0"),
        "scipy==1.16.0",
    ]


def test_an_extra_that_the_project_asks_for_is_taken_too(tmp_path):
    (tmp_path / "requirements.txt").write_text("dumbwaiter[image]\n")
    assert pins(tmp_path, "redis")[0] == "dumbwaiter[image,redis]==0.1.0"
    assert "pillow==11.3.0" in pins(tmp_path)


def test_without_requirements_those_of_pyproject_are_taken(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "kitchen"\ndependencies = ["Pillow"]\n')
    assert pins(tmp_path) == ["dumbwaiter==0.1.0", "msgspec==0.20.0", "pillow==11.3.0"]


def test_without_either_all_that_is_installed_is_taken_and_said_so(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    found = requirements_of(tmp_path, ["redis"], HERE)
    assert found.pins[0] == "dumbwaiter[image,numpy,redis]==0.1.0"
    assert {"pytest==8.3.0", "scipy==1.16.0"} < {*found.pins}
    assert "pip==25.0" not in found.pins
    assert str(tmp_path) in found.source


@pytest.mark.parametrize(
    "line",
    [
        "msgspec==0.20.0 --hash=sha256:1234",
        "kitchen @ https://example.com/kitchen.whl",
        "-r more.txt",
        "-e git+https://example.com/kitchen#egg=kitchen",
        "git+ssh://git@example.com/kitchen",
        "--find-links ./wheels",
        "-e git+https://example.com/a@b/c",
    ],
)
def test_what_stands_in_pips_own_words_is_left_to_pip(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(f"{line}\nhiredis==3.0\n")
    (tmp_path / "more.txt").write_text("pillow\n")
    found = requirements_of(tmp_path, ["redis"], HERE)
    assert found.as_is == "requirements.txt"
    assert "redis==7.1.0" in found.pins
    assert not [pin for pin in found.pins if pin.startswith("hiredis")]


@pytest.mark.parametrize(
    "line",
    [
        *("-e .", "-e.", "--editable=./here", "-e src/kitchen", "-e file:///src/kitchen", '-e ".[dev]"', "--edit ."),
        *(
            ".",
            ".[dev]",
            "./wheels/a.whl",
            "../kitchen",
            "/src/kitchen",
            "~/kitchen",
            "wheels/a.whl",
            "src/kitchen[cpu]",
        ),
        *("kitchen-1.0-py3-none-any.whl", "kitchen-1.0.tar.gz", "./a.whl ; python_version > '3'"),
        *("file:///src/kitchen", "file:kitchen", "git+file:///src/kitchen", "-e git+file:///src/kitchen#egg=kitchen"),
        *("kitchen @ file:///src/kitchen", "kitchen[cpu]@file:///src/kitchen", "kitchen @ git+file:///src/kitchen"),
        *(
            "./a.whl --hash=sha256:1234",
            "/src/kitchen --config-settings=a=b:c",
            "a-1.0-py3-none-any.whl --hash=sha256:1",
        ),
    ],
)
@pytest.mark.parametrize("file", ["requirements.txt", "more.txt"])
def test_what_pip_would_take_from_a_path_is_refused_for_elsewhere_is_none(tmp_path, line, file):
    (tmp_path / "requirements.txt").write_text("-r more.txt\n")
    (tmp_path / "more.txt").write_text("pillow\n")
    with (tmp_path / file).open("a") as lines:
        lines.write(f"{line}\n")
    with pytest.raises(ConfigError) as refused:
        requirements_of(tmp_path, [], HERE)
    assert f"{file} installs a file or folder of this machine" in str(refused.value)
    assert f": {line};" in str(refused.value)
    assert "put its wheel into the folder wheels/" in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        *("./a.whl ; sys_platform == 'win32'", "${WHERE}/a.whl", "https://example.com/a.whl"),
        *("pillow --config-settings=prefix=/usr/lib", 'pillow --global-option="--with=/opt"'),
    ],
)
def test_what_pip_passes_over_or_may_find_elsewhere_is_left_to_it(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(f"{line}\n")
    assert requirements_of(tmp_path, [], HERE).as_is == "requirements.txt"


def test_what_is_missing_is_told_with_who_requires_it(tmp_path):
    (tmp_path / "requirements.txt").write_text("kitchen\n")
    with pytest.raises(ConfigError, match="stove is required by kitchen and not installed here"):
        requirements_of(tmp_path, [], {**HERE, "kitchen": Installed("1.0", ["stove"])})


def test_a_password_in_a_comment_is_refused_for_the_file_goes_along_whole(tmp_path):
    (tmp_path / "requirements.txt").write_text("pillow\n# --index-url https://user:secret@example.com/simple\n")
    with pytest.raises(ConfigError, match=r"requirements\.txt has a URL with a user or password") as refused:
        requirements_of(tmp_path, [], HERE)
    assert "secret" not in str(refused.value)


def test_a_link_that_leads_out_of_the_project_is_refused(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "outside.txt").write_text("pillow\n")
    (tmp_path / "project" / "requirements.txt").write_text("-r link.txt\n")
    (tmp_path / "project" / "link.txt").symlink_to(tmp_path / "outside.txt")
    with pytest.raises(ConfigError, match=r"link\.txt leads out of"):
        requirements_of(tmp_path / "project", [], HERE)


def test_constraints_may_say_which_version_but_not_to_take_it_from_a_path(tmp_path):
    (tmp_path / "requirements.txt").write_text("pillow\n-c frozen.txt\n")
    (tmp_path / "frozen.txt").write_text("pillow==11.3.0\n")
    assert requirements_of(tmp_path, [], HERE).beside == ["frozen.txt"]
    (tmp_path / "frozen.txt").write_text("pillow @ file:///src/pillow\n")
    with pytest.raises(ConfigError, match=r"frozen\.txt installs a file or folder of this machine"):
        requirements_of(tmp_path, [], HERE)


@pytest.mark.parametrize("line", ["msgspec; os_name ~= 'x'", "./kitchen; os_name ~= 'x'"])
def test_a_marker_that_cannot_be_compared_is_refused_with_its_file(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=r"requirements\.txt has a marker that says nothing of any machine: os_name"):
        requirements_of(tmp_path, [], HERE)


def test_a_package_of_a_folder_here_is_pinned_and_a_wheel_to_be_made_as_pip_freeze_writes_it(tmp_path):
    (tmp_path / "requirements.txt").write_text("dumbwaiter @ file:///src/dumbwaiter\npillow==11.3.0\n")
    found = requirements_of(tmp_path, [], HERE)
    assert found.as_is is None
    assert found.pins[0].startswith("dumbwaiter")
    assert found.local == {"dumbwaiter": "/src/dumbwaiter"}


def test_what_was_installed_from_a_folder_is_named_for_no_index_has_it(tmp_path):
    (tmp_path / "requirements.txt").write_text("scipy\n")
    assert requirements_of(tmp_path, [], HERE).local == {"dumbwaiter": "/src/dumbwaiter"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("torch", "torch in requirements.txt is not installed here"),
        ("scipy>=2", "asks for scipy>=2, and 1.16.0 is installed"),
    ],
)
def test_what_is_not_here_as_it_is_asked_for_is_refused_with_the_remedy(tmp_path, line, words):
    (tmp_path / "requirements.txt").write_text(f"{line}\n")
    with pytest.raises(ConfigError) as refused:
        pins(tmp_path)
    assert words in str(refused.value)
    assert f"pip install '{line}'" in str(refused.value)


def test_a_requirement_for_other_machines_is_passed_over(tmp_path):
    (tmp_path / "requirements.txt").write_text("torch; sys_platform == 'plan9'\n")
    assert pins(tmp_path) == ["dumbwaiter==0.1.0", "msgspec==0.20.0"]


def test_an_environment_in_which_something_is_missing_is_refused(tmp_path):
    (tmp_path / "requirements.txt").write_text("scipy\n")
    torn = {name: one for name, one in HERE.items() if name != "numpy"}
    with pytest.raises(ConfigError, match="numpy is required by scipy and not installed here"):
        pins(tmp_path, installed=torn)


@pytest.mark.parametrize("file", ["requirements.txt", "pyproject.toml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, file):
    (tmp_path / file).write_bytes(b"\xff\xfe = [")
    with pytest.raises(ConfigError, match="cannot be read"):
        pins(tmp_path)


def test_this_environment_can_be_pinned(tmp_path):
    (tmp_path / "requirements.txt").write_text("rich\n")
    found = pins(tmp_path, "redis", installed=installed_here())
    assert f"rich=={version('rich')}" in found
    assert f"hiredis=={version('hiredis')}" in found
    assert not [pin for pin in found if pin.startswith(("torch", "pytest"))]


@pytest.mark.parametrize(
    "line",
    [
        "--extra-index-url https://chef:hunter2@index.example.com/simple",
        "kitchen @ git+https://hunter2@example.com/kitchen",
        "-i https://${USER}:hunter2@index.example.com",
        "-i https://${USER}:${TOKEN}@a.example.com --extra-index-url https://chef:hunter2@b.example.com",
        "kitchen @ git+ssh://git:hunter2@example.com/kitchen",
        "kitchen @ svn://chef:hunter2@example.com/kitchen",
        "--index-url \\\n  https://chef:hunter2@index.example.com",
    ],
)
def test_a_password_in_what_would_be_part_of_the_image_is_refused_and_not_told(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(f"msgspec\n{line}\n")
    with pytest.raises(ConfigError, match="PIP_EXTRA_INDEX_URL") as refused:
        requirements_of(tmp_path, [], HERE)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://${USER}:${TOKEN}@index.example.com",
        "https://index.example.com/a@b",
        "git+ssh://git@example.com/kitchen",
    ],
)
def test_variables_of_pip_and_the_user_of_ssh_are_no_password(tmp_path, url):
    (tmp_path / "requirements.txt").write_text(f"--index-url {url}\n")
    assert requirements_of(tmp_path, [], HERE).as_is == "requirements.txt"


@pytest.mark.parametrize("option", ["-r {}", "-r{}", "--requirement={}", "-c '{}'", "--constraint {}", "--pre -r {}"])
def test_files_that_requirements_name_are_read_as_far_as_they_go(tmp_path, option):
    (tmp_path / "requirements.txt").write_text(f"{option.format('more/a.txt')}  # others\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a.txt").write_text("hiredis==3.0\n-r ../b.txt\n-r https://example.com/c.txt\n")
    (tmp_path / "b.txt").write_text("-r requirements.txt\nmsgspec\n")
    found = requirements_of(tmp_path, ["redis"], HERE)
    assert found.beside == ["more/a.txt", "b.txt"]
    assert found.pins == ["dumbwaiter[redis]==0.1.0", "redis==7.1.0"]
    (tmp_path / "b.txt").write_text("--index-url https://chef:hunter2@index.example.com\n")
    with pytest.raises(ConfigError, match=r"^b\.txt has a URL with a user or password") as refused:
        requirements_of(tmp_path, ["redis"], HERE)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["../base.txt", "/etc/base.txt", "file:///etc/base.txt", "${HOME}.txt", "a*.txt"])
def test_a_file_outside_of_the_project_is_refused_by_name(tmp_path, name):
    (tmp_path / "requirements.txt").write_text(f"-r {name}\n")
    (tmp_path.parent / "base.txt").write_text("msgspec\n")
    with pytest.raises(ConfigError, match=r"requirements\.txt names the file .*base|\.txt'") as refused:
        requirements_of(tmp_path, [], HERE)
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("line", ["-r", "-r 'a b.txt"])
def test_a_line_that_pip_cannot_read_is_refused(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(f"{line}\n")
    with pytest.raises(ConfigError, match="a line that pip cannot read"):
        requirements_of(tmp_path, [], HERE)


def of_pyproject(folder, dependencies):
    (folder / "pyproject.toml").write_text(f"[project]\nname = 'kitchen'\ndependencies = {dependencies}\n")
    return requirements_of(folder, ["redis"], HERE)


def test_a_url_of_pyproject_stands_below_the_pins_of_all_else(tmp_path):
    found = of_pyproject(tmp_path, ["msgspec>=0.19", "Pillow[xmp] @ https://example.com/p.whl ; python_version > '3'"])
    assert found.pins == ["dumbwaiter[redis]==0.1.0", "hiredis==3.2.1", "msgspec==0.20.0", "redis==7.1.0"]
    assert found.urls == ["Pillow[xmp] @ https://example.com/p.whl"]
    assert found.as_is is None
    assert found.source == "pyproject.toml, in the versions installed here, and 1 from a URL"


def test_what_a_package_from_a_url_requires_is_pinned_if_it_is_here(tmp_path):
    assert "numpy==2.3.0" in of_pyproject(tmp_path, ["scipy @ https://example.com/s.whl"]).pins
    assert of_pyproject(tmp_path, ["torch @ https://example.com/t.whl"]).urls == ["torch @ https://example.com/t.whl"]


def test_dumbwaiter_itself_may_come_from_a_url_and_keeps_its_extras(tmp_path):
    found = of_pyproject(tmp_path, ["dumbwaiter[image] @ git+https://example.com/dumbwaiter"])
    assert found.urls == ["dumbwaiter[image,redis] @ git+https://example.com/dumbwaiter"]
    assert not [pin for pin in found.pins if pin.startswith("dumbwaiter")]
    assert "pillow==11.3.0" in found.pins
    assert not found.local


def test_a_folder_of_this_machine_is_a_wheel_to_be_made_for_no_image_has_it(tmp_path):
    here = {**HERE, "pillow": Installed("11.3.0", [], "/src/pillow")}
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = ['pillow @ file:///src/pillow']\n")
    found = requirements_of(tmp_path, [], here)
    assert "pillow==11.3.0" in found.pins
    assert found.local["pillow"] == "/src/pillow"
    assert not found.urls


@pytest.mark.parametrize(
    "text", ["nump\nRUN evil", "", "-r more.txt", "numpy 2", "a @ https://example.com/a\\", "a @ https://a\x00b"]
)
def test_a_dependency_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"pyproject\.toml has the dependency .*, which is none; write NAME"):
        of_pyproject(tmp_path, f"['msgspec', {json.dumps(text)}]")


@pytest.mark.parametrize(
    "toml", ["project = 1", "[project]\ndependencies = 'numpy'", "[project]\ndependencies = [1]", "[[project]]"]
)
def test_what_is_no_list_of_dependencies_is_refused(tmp_path, toml):
    (tmp_path / "pyproject.toml").write_text(f"{toml}\n")
    with pytest.raises(ConfigError, match=r"cannot be read: pyproject\.toml: Expected"):
        requirements_of(tmp_path, [], HERE)


def test_a_password_in_pyproject_is_refused_and_not_told(tmp_path):
    with pytest.raises(ConfigError, match=r"pyproject\.toml has a URL with a user or password") as refused:
        of_pyproject(tmp_path, ["kitchen @ https://chef:hunter2@example.com/kitchen.whl"])
    assert "hunter2" not in str(refused.value)
