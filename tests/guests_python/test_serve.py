"""What the SDK says at build of a module that does not fit, on the bindings' own stubs.

The stubs have the classes and annotations of the real bindings and take a fifth of a second to
make, where a component takes many.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from capwasm._shipped import guest_sdk, wit_packages
from capwasm.authoring.world import BINDING_NAMES

pytestmark = pytest.mark.toolchain("componentize-py")

WORLD = """package test:thing@1.0.0;

interface api {{
    {items}
    hello: func(name: string) -> result<string, string>;
}}

world thing {{
    include capwasm:plugin/capabilities@0.1.0;
    export api;
    {exports}
}}
"""
GOOD = "from capwasm_guest import plugin\n@plugin\nclass Thing:\n    def hello(self, name): return name\n"


def serve(tmp_path: Path, source: str, items: str = "", exports: str = "") -> str:
    """What importing the module into the bindings ends with, or `fits`."""
    wit = tmp_path / "wit"
    for name, files in wit_packages().items():
        (wit / "deps" / name).mkdir(parents=True)
        for file, text in files.items():
            (wit / "deps" / name / file).write_text(text)
    (wit / "world.wit").write_text(WORLD.format(items=items, exports=exports))
    (tmp_path / "plugin.py").write_text(source)
    names = [
        w for i, n in BINDING_NAMES.items() for w in ("--import-interface-name", f"{i}@0.1.0={n}")
    ]
    script = "import sys; from componentize_py import script; sys.argv[0] = 'x'; script()"
    tool = [sys.executable, "-c", script]
    made = subprocess.run(
        [*tool, "-d", str(wit), *names, "bindings", str(tmp_path / "bindings")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    code = "from capwasm_guest._serve import exports; print(sorted(exports('plugin')))"
    paths = [str(tmp_path), str(tmp_path / "bindings"), str(guest_sdk())]
    run = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip() or run.stderr.strip()


def test_allows_a_class_that_fits(tmp_path: Path) -> None:
    assert serve(tmp_path, GOOD) == "['Api']"


def test_allows_a_class_for_each_interface_and_for_the_world(tmp_path: Path) -> None:
    source = (
        GOOD.replace("@plugin", "@plugin(interface='api')")
        + "@plugin\nclass Rest:\n    def handle(self, topic, message): return b''\n"
        "    def go(self): pass\n"
    )
    exports = "export capwasm:plugin/handler@0.1.0;\nexport go: func();"

    assert serve(tmp_path, source, exports=exports) == "['Api', 'Handler', 'WitWorld']"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (GOOD.replace("@plugin\n", ""), "put @plugin above one (from capwasm_guest import plugin)"),
        (GOOD.replace("hello", "helo"), "has no method hello(self, name: str) -> str"),
        (GOOD.replace("hello", "helo"), "rename helo"),
        (GOOD.replace("(self, name)", "(self)"), "wit/ wants hello(self, name: str) -> str"),
        (GOOD.replace("    def", "    async def"), "it must not be `async def`"),
        (GOOD + "@plugin\nclass Other: pass\n", 'as in @plugin(interface="api")'),
        (
            "from capwasm_guest import random\nrandom.bytes(3)\n" + GOOD,
            "Move it into a method of the plugin's class",
        ),
        ("import capwasm_guest.log as l\nl.info('x')\n" + GOOD, "log was used while"),
    ],
)
def test_refuses_a_module_that_does_not_fit(tmp_path: Path, source: str, said: str) -> None:
    assert said in serve(tmp_path, source)


def test_refuses_a_resource_that_the_world_exports(tmp_path: Path) -> None:
    said = serve(tmp_path, GOOD, items="resource thing { up: func() -> u32; }")

    assert "interface 'api' exports the resource 'thing'" in said


def test_refuses_the_sdk_outside_of_a_component() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import capwasm_guest.kv"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(guest_sdk())},
    )

    assert "capwasm_guest.kv works inside a component only" in run.stderr
