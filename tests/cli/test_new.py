"""`capwasm new`: projects from the templates, and names that can be none."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm._shipped import templates
from capwasm.authoring import scaffold
from capwasm.authoring.builders import LANGUAGES, builder
from capwasm.authoring.project import language_of, read_manifest
from capwasm.cli import capwasm

REPOSITORY = Path(__file__).parents[2]
SHIPPED = scaffold.shipped_languages()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)


def new(*words: str) -> Result:
    return CliRunner().invoke(capwasm, ["new", *words])


def refused(*words: str) -> list[dict[str, Any]]:
    """The faults; nothing was written."""
    before = sorted(Path().rglob("*"))
    done = new("--json", *words)
    assert done.exit_code == 1, done.output
    assert sorted(Path().rglob("*")) == before
    error = json.loads(done.stdout)
    assert error["code"] == "build.project"
    faults: list[dict[str, Any]] = error["faults"]
    return faults


# -- what is written -------------------------------------------------------------------------------


@pytest.mark.parametrize("language", SHIPPED)
def test_allows_a_project_in_each_language(language: str) -> None:
    done = new("rain-gauge", "--lang", language, "--id", "acme.tools.rain-gauge", "--json")

    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    root = Path("rain-gauge")
    files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert set(data["files"]) == files
    assert {"plugin.toml", "wit/world.wit", "tests/test_plugin.py", "README.md"} <= files
    for path in [p for p in root.rglob("*") if p.is_file()]:
        assert not re.search(r"__[A-Z]+__", path.read_text() + path.name), path
    manifest = read_manifest(root / "plugin.toml")
    assert manifest.id == "acme.tools.rain-gauge"
    assert manifest.plugin.world == "acme:rain-gauge/rain-gauge@0.1.0"
    assert "package acme:rain-gauge@0.1.0;" in (root / "wit/world.wit").read_text()
    found = language_of(root)
    assert found is not None
    assert found.name == language
    builder(language).check(manifest)


def test_allows_to_leave_out_the_id_and_to_name_the_directory() -> None:
    Path("plugins").mkdir()

    done = new("greeter", "--lang", "python", "--dir", "plugins/first")

    assert done.exit_code == 0, done.output
    assert read_manifest(Path("plugins/first/plugin.toml")).id == "example.greeter"
    assert "cd plugins/first && capwasm build" in done.stdout
    assert sorted(p.name for p in Path("plugins").iterdir()) == ["first"]


def test_tells_which_tools_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    from capwasm.authoring.builders import python

    def none(_name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(python, "version", none)

    done = new("greeter", "--lang", "python")

    assert done.exit_code == 0
    assert 'pip install "capwasm[build-python]"' in done.stderr


# -- what can't be ---------------------------------------------------------------------------------


def test_refuses_with_all_faults_at_once() -> None:
    Path("there").mkdir()

    faults = refused("Rain_Gauge", "--lang", "cobol", "--id", "acme", "--dir", "there")

    assert [f["path"] for f in faults] == ["NAME", "--id", "--lang", "--dir"]
    assert "such as rain-gauge" in faults[0]["message"]
    assert "python" in faults[2]["message"]


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", "a--b", "1a", "a-1", "a.b", "a/b", "..", "a b", "ä", "A", "a" * 41,
     "interface", "list", "api", "none", "match", "greeting", "a\n"],
)  # fmt: skip
def test_refuses_a_name_that_some_language_can_not_have(name: str) -> None:
    [fault] = refused("--lang", "python", "--dir", "x", "--", name)

    assert fault["path"] == "NAME"


@pytest.mark.parametrize("plugin_id", ["acme", "Acme.x", "capwasm.x", "wasi.x", "world.x", "a-1.x"])
def test_refuses_an_id_that_is_none_or_whose_namespace_is_taken(plugin_id: str) -> None:
    [fault] = refused("x-y", "--lang", "python", "--id", plugin_id)

    assert fault["path"] == "--id"


def test_refuses_a_directory_that_is_there_and_leaves_it_alone() -> None:
    Path("greeter").mkdir()
    Path("greeter/mine.txt").write_text("mine")
    Path("link").symlink_to("nowhere")

    assert "is there already" in refused("greeter", "--lang", "python")[0]["message"]
    assert "is there already" in refused("link", "--lang", "python")[0]["message"]
    assert "no directory" in refused("x", "--lang", "python", "--dir", "no/x")[0]["message"]
    assert Path("greeter/mine.txt").read_text() == "mine"


def test_refuses_a_language_whose_template_is_not_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        scaffold, "templates", lambda name: templates("python") if name == "python" else []
    )

    [fault] = refused("greeter", "--lang", "go")

    assert fault["message"] == "there is no template for go; there are: python"


def test_a_disk_that_is_full_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def full(path: Path, *args: Any, **words: Any) -> int:
        if path.name == "world.wit":
            raise OSError(28, "No space left on device")
        return write(path, *args, **words)

    monkeypatch.setattr(Path, "write_text", full)

    done = new("greeter", "--lang", "python", "--json")

    assert done.exit_code == 1
    assert "No space left" in json.loads(done.stdout)["message"]
    assert list(Path().iterdir()) == []


# -- the templates ---------------------------------------------------------------------------------


def test_the_page_lists_the_words_that_are_replaced() -> None:
    page = (REPOSITORY / "guest-sdk/README.md").read_text(encoding="utf-8")
    words = scaffold._words(scaffold.New("rain-gauge", "rust", "acme.tools.rain-gauge"), "Rust")

    listed = dict(re.findall(r"^\| `(__[A-Z]+__)` \| `([^`]+)`", page, re.MULTILINE))
    assert listed == words


@pytest.mark.parametrize("language", [name for name in LANGUAGES if templates(name)])
def test_a_template_brings_neither_its_own_world_nor_its_own_tests(language: str) -> None:
    _, own = templates(language)

    assert not (own / "wit").exists()
    assert not (own / "tests").exists()


def test_refuses_a_template_with_a_word_that_means_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_text("__NAEM__")
    monkeypatch.setattr(scaffold, "templates", lambda _name: [tmp_path])

    assert new("greeter", "--lang", "python").exit_code == 70
    assert list(Path().iterdir()) == []


def test_the_template_of_python_asks_for_no_more_than_it_needs() -> None:
    common, own = (tomllib.loads((p / "plugin.toml").read_text()) for p in templates("python"))

    assert set(own) - set(common) == {"random"}
    assert {k: v for k, v in own.items() if k != "random"} == common
