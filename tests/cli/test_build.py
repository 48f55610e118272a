"""`capwasm build`: what it makes, and what it tells an author whose project does not build."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.trust import TrustStore
from capwasm.capsule.verify import verify
from capwasm.cli import capwasm
from tests.guests_python.bench import EXAMPLES, LAB, MISSING, REPOSITORY, snapshot
from tests.kit import guest

python = pytest.mark.toolchain("componentize-py")

MANIFEST = """schema = 1
[plugin]
id = "test.thing"
name = "Thing"
version = "1.0.0"
requires-core = ">=0"
kind = "component"
"""
WORLD = """package test:thing@1.0.0;

interface api {
    hello: func(name: string) -> result<string, string>;
    count: func() -> u32;
}

world thing {
    include capwasm:plugin/capabilities@0.1.0;
    export api;
}
"""
GOOD = """from capwasm_guest import plugin

@plugin
class Thing:
    def hello(self, name):
        return f"hello {name}"

    def count(self):
        return 1
"""


@pytest.fixture(autouse=True)
def _toolchain(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("toolchain") and MISSING:
        pytest.skip(MISSING)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "thing"
    (place / "wit").mkdir(parents=True)
    (place / "plugin.toml").write_text(MANIFEST + "[random]\n")
    (place / "wit/world.wit").write_text(WORLD)
    (place / "plugin.py").write_text(GOOD)
    return place


def build(project: Path, *words: str) -> Result:
    out = project.parent / "out.capsule"
    home = project.parent / "home"
    args = ["build", "--home", str(home), str(project), "-o", str(out), *words]
    return CliRunner().invoke(capwasm, args)


def refused(project: Path, *words: str) -> dict[str, Any]:
    """The error as data; nothing was written."""
    before = snapshot(project)
    result = build(project, "--json", *words)
    assert result.exit_code == 1, result.output
    assert snapshot(project) == before
    assert not (project.parent / "out.capsule").exists()
    error: dict[str, Any] = json.loads(result.stdout)
    return error


# -- without a toolchain -------------------------------------------------------------------------


def ready(project: Path, tables: str) -> Path:
    (project / "plugin.py").unlink()
    (project / "plugin.wasm").write_bytes(guest("prober"))
    (project / "plugin.toml").write_text(MANIFEST + tables)
    return project


EVERYTHING = """
[[fs]]
mount = "/d"
bind = "d"
access = "read"
[[net]]
allow = "https://a.example/"
[[secret]]
name = "s"
use = "reveal"
[kv]
[log]
[clock]
[random]
[config]
keys = ["a"]
[[exec]]
command = "a"
"""


def test_allows_a_ready_component(project: Path) -> None:
    (project / "README.md").write_text("# Thing\n")
    result = build(ready(project, EVERYTHING), "--json")

    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["members"] == ["README.md", "plugin.toml", "plugin.wasm", "wit/world.wit"]
    assert data["signed-by"] is None
    assert "capwasm:kv/store@0.1.0" in data["imports"]
    assert [p["risk"] for p in data["permissions"]][:2] == ["high", "high"]
    assert data["warnings"] == []


@pytest.mark.case("TYP-10")
def test_refuses_a_component_that_imports_what_is_not_declared_with_the_lines(
    project: Path,
) -> None:
    less = EVERYTHING.replace("[kv]\n", "").replace("[clock]\n", "")
    error = refused(ready(project, less.replace('[[exec]]\ncommand = "a"\n', "")))

    assert error["code"] == "link.undeclared-import"
    assert {f["path"]: f["fix"] for f in error["faults"]} == {
        "capwasm:kv/store@0.1.0": "[kv]",
        "capwasm:clock/clock@0.1.0": "[clock]",
        "capwasm:exec/commands@0.1.0": '[[exec]]\ncommand = "thumbnail"',
    }


def test_warns_of_what_is_declared_and_never_imported(project: Path) -> None:
    ready(project, EVERYTHING)
    (project / "plugin.wasm").write_bytes(
        (REPOSITORY / "runtime/src/capwasm/demo/weather.wasm").read_bytes()
    )

    data = json.loads(build(project, "--json").stdout)

    assert data["warnings"] == [
        f"plugin.toml declares {table}, and the plugin does not seem to use it"
        for table in ("[random]", "[[exec]]")
    ]


def test_allows_to_sign_with_a_key(project: Path, tmp_path: Path) -> None:
    key = PrivateKey.generate()
    key.save(tmp_path / "k.key", None)
    (tmp_path / "trust.toml").write_text(
        f'schema = 1\n[[key]]\nname = "k"\npublic = "{key.public.base64()}"\n'
        'roles = ["publisher"]\nids = ["test.*"]\n'
    )

    result = build(ready(project, EVERYTHING), "--key", str(tmp_path / "k.key"))

    assert result.exit_code == 0, result.output
    assert f"signed by {key.public.key_id}" in result.stdout
    artifact = read_artifact(tmp_path / "out.capsule")
    assert verify(artifact, TrustStore.load(tmp_path / "trust.toml")).id == "test.thing"


def test_refuses_a_key_that_is_not_there_before_it_builds(project: Path) -> None:
    assert refused(project, "--key", "nothing.key")["code"] == "trust.unreadable"


def test_refuses_code_that_is_no_component(project: Path) -> None:
    ready(project, "[random]\n")
    (project / "plugin.wasm").write_bytes(b"\0asm\x01\0\0\0")

    assert refused(project)["code"] == "artifact.not-a-component"


def test_refuses_a_manifest_with_all_its_faults(project: Path) -> None:
    (project / "plugin.toml").write_text(MANIFEST + "[clok]\n[log]\nrate = -1\n")

    error = refused(project)

    assert error["code"] == "manifest.invalid"
    assert sorted(f["path"] for f in error["faults"]) == ["", "log.rate"]
    assert any("clok" in f["message"] and "clock" in f["message"] for f in error["faults"])


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda p: (p / "plugin.py").unlink(), "build.project", "neither plugin.py"),
        (lambda p: (p / "plugin.wasm").write_bytes(b"x"), "build.project", "Remove the other"),
        (lambda p: (p / "plugin.toml").unlink(), "manifest.unreadable", ""),
        (
            lambda p: (p / "plugin.toml").write_text(MANIFEST.replace("component", "native")),
            "build.project",
            "capwasm pack",
        ),
    ],
    ids=["no sources", "two sources", "no manifest", "native"],
)
def test_refuses_a_project_that_lacks_a_part(
    project: Path, change: Any, code: str, said: str
) -> None:
    change(project)

    error = refused(project)

    assert error["code"] == code
    assert said in error["message"]


@pytest.mark.parametrize("tables", ["", "[random]\noptional = true\n"])
def test_refuses_python_without_random_bytes_with_the_line(project: Path, tables: str) -> None:
    (project / "plugin.toml").write_text(MANIFEST + tables)

    error = refused(project)

    assert error["faults"][0]["fix"].startswith("[random]\n")


@pytest.mark.parametrize("found", ["", "0.20.1"])
def test_refuses_without_the_toolchain_with_the_command(
    project: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    from importlib.metadata import PackageNotFoundError

    from capwasm.authoring.builders import python as builder

    def version(_name: str) -> str:
        if not found:
            raise PackageNotFoundError
        return found

    monkeypatch.setattr(builder, "version", version)

    error = refused(project)

    assert error["code"] == "build.toolchain"
    assert 'pip install "capwasm[build-python]"' in error["message"]


# -- with componentize-py ------------------------------------------------------------------------


@python
def test_allows_a_class_and_leaves_the_authors_tree_alone(project: Path) -> None:
    (project / "plugin.toml").write_text(MANIFEST + "[random]\n[kv]\n[log]\n")
    (project / "vendor").mkdir()
    (project / "vendor/dep.py").write_text("WORD = 'dep'\n")
    (project / "plugin.py").write_text("import dep, time\n" + GOOD)
    before = snapshot(project)

    data = json.loads(build(project, "--json").stdout)

    assert snapshot(project) == before
    ours = [i for i in data["imports"] if i.startswith("capwasm:")]
    assert ours == [
        "capwasm:kv/store@0.1.0",
        "capwasm:log/log@0.1.0",
        "capwasm:random/random@0.1.0",
    ]
    assert data["tool"].startswith("componentize-py 0.25")
    assert data["warnings"] == [
        "time reads the clock, and plugin.toml does not declare [clock]",
        "plugin.toml declares [kv], and the plugin does not seem to use it",
    ]


SOURCES = {
    "every method that is missing, with a near name": (
        GOOD.replace("def hello", "def helo").replace("def count(self)", "def count(self, x)"),
        ["plugin.py:3: Thing has no method hello(self, name: str) -> str", "rename helo",
         "Thing.count: wit/ wants count(self) -> int: missing a required argument: 'x'"],
    ),
    "a module that is not there": (
        "import nothing_like_it\n" + GOOD,
        ['File "plugin.py", line 1', "nothing_like_it", "pip install --target vendor"],
    ),
    "a capability that is not declared": (
        "\nfrom capwasm_guest import kv\n" + GOOD,
        ['File "plugin.py", line 2', "capwasm_guest.kv needs a [kv] table in plugin.toml"],
    ),
}  # fmt: skip


@python
@pytest.mark.parametrize("case", SOURCES)
def test_refuses_sources_that_do_not_build_with_file_and_line(project: Path, case: str) -> None:
    source, said = SOURCES[case]
    (project / "plugin.py").write_text(source)

    error = refused(project)

    assert error["code"] == "build.failed"
    told = error["message"] + "\n" + "\n".join(f["message"] for f in error.get("faults", []))
    for part in said:
        assert part in told
    for noise in ("Stack backtrace", "capwasm_app", "/0/", "componentize_py::"):
        assert noise not in told


@python
def test_refuses_a_world_that_does_not_parse_with_its_line(project: Path) -> None:
    (project / "wit/world.wit").write_text(WORLD.replace("u32", "u33"))

    error = refused(project)

    assert "wit/world.wit:5" in error["message"]


@python
def test_refuses_a_project_without_a_world(project: Path) -> None:
    (project / "wit/world.wit").unlink()

    assert "no wit/world.wit" in refused(project)["message"]


def test_the_examples_manifests_are_whole() -> None:
    for place in (EXAMPLES / "weather", EXAMPLES / "notes-index", LAB):
        result = CliRunner().invoke(capwasm, ["manifest", "check", str(place / "plugin.toml")])
        assert result.exit_code == 0, result.output


def test_the_wheel_carries_what_a_build_needs() -> None:
    target = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    carried = target["targets"]["wheel"]["force-include"]

    assert carried == {place: f"capwasm/_data/{place}" for place in carried}
    assert all((REPOSITORY / place).exists() for place in carried)
    assert {"wit", "guest-sdk/template", "guest-sdk/python/src/capwasm_guest"} <= set(carried)
    # A template that is not carried is one that an installed `capwasm new` does not have.
    languages = {p.parent.name for p in (REPOSITORY / "guest-sdk").glob("*/template")}
    assert {f"guest-sdk/{name}/template" for name in languages} <= set(carried)
