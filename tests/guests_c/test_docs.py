"""Every example of the C SDK's README, compiled into one plugin and run with everything granted."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.authoring.builders.c import find_compiler
from capwasm.plugin import Plugin
from tests.builds import REPOSITORY
from tests.sdkdocs import loaded

SDK = REPOSITORY / "guest-sdk/c"


def examples() -> list[tuple[str, str]]:
    """Heading and example, in their order."""
    text = (SDK / "README.md").read_text(encoding="utf-8")
    return [
        (part.partition("\n")[0], block)
        for part in text.split("\n### ")[1:]
        for block in re.findall(r"```c run\n(.*?)```", part, re.DOTALL)
    ]


EXAMPLES = examples()


def source() -> str:
    """The plugin whose function `run` has one of them each; its setting says where the origin is."""
    functions = "".join(
        f"static capwasm_error example_{number}(void) {{\n{block}\nreturn CAPWASM_OK;\n}}\n\n"
        for number, (_, block) in enumerate(EXAMPLES)
    )
    functions = re.sub(r'CAPWASM_TEXT\("https://api.acme.com(/[^"]*)"\)', r'at("\1")', functions)
    names = ", ".join(f"example_{number}" for number in range(len(EXAMPLES)))
    return f"""#include <capwasm.h>

#include <stdio.h>

#include "plugin.h"

static capwasm_text at(const char *path) {{
    capwasm_text origin;
    capwasm_config_get(CAPWASM_TEXT("origin"), &origin);
    return capwasm_format("%s%s", origin.data, path);
}}

{functions}static capwasm_error (*const examples[])(void) = {{{names}}};

bool exports_api_run(uint32_t number, plugin_string_t *err) {{
    capwasm_error error = examples[number]();
    if (error)
        plugin_string_dup(err, capwasm_word(error));
    return error == CAPWASM_OK;
}}
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    with loaded(tmp_path_factory.mktemp("c"), "C", {"plugin.c": source()}) as plugin:
        yield plugin


def test_every_function_of_the_header_has_an_example() -> None:
    header = (SDK / "include/capwasm.h").read_text(encoding="utf-8")
    functions = set(re.findall(r"\b(capwasm_\w+)\([^)]*\)(?: CAPWASM_PRINTF\(.*\))?;", header))
    shown = set(re.findall(r"\bcapwasm_\w+", "".join(block for _, block in EXAMPLES)))
    # By their macros: CAPWASM_GIVE, and the template has it.
    assert functions - shown == {"capwasm_give"}


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=[h.split(":")[0] for h, _ in EXAMPLES])
def test_allows_each_example_of_the_readme(plugin: Plugin, number: int) -> None:
    result = plugin.call("run", number)

    assert result.ok, result.error


def test_cmake_makes_a_library_of_the_sdk(tmp_path: Path) -> None:
    cmake, compiler = shutil.which("cmake"), find_compiler()
    if cmake is None or compiler is None or not compiler.name.startswith("clang"):
        pytest.skip(
            "cmake and clang with wasi-libc are wanted: apt-get install cmake clang wasi-libc"
        )
    command, target = compiler.argv
    options = [
        "-DCMAKE_SYSTEM_NAME=Generic",
        f"-DCMAKE_C_COMPILER={command}",
        f"-DCMAKE_C_FLAGS={target}",
        "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY",
    ]
    for words in ([cmake, "-S", SDK, "-B", tmp_path, *options], [cmake, "--build", tmp_path]):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    assert list(tmp_path.glob("*capwasm-guest.a"))
