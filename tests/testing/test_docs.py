"""docs/testing.md, run as it stands, on the plugin of `capwasm demo`."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from tests.testing.test_fixtures import run_pytest

PAGE = Path(__file__).parents[2] / "docs/testing.md"


def blocks() -> dict[str, str]:
    """The blocks of the page that begin with a file's name."""
    text = PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", text, re.DOTALL))


def test_every_block_of_code_has_a_name() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(blocks()) == len(re.findall(r"```(?:python|toml)\n", text))


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    for name, text in blocks().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = files("capwasm.demo") / "weather.wasm"
    (tmp_path / "plugin.wasm").write_bytes(code.read_bytes())
    done = run_pytest(tmp_path, CAPWASM_PROJECT="")
    assert done.returncode == 0, done.stdout + done.stderr
    written = "".join(blocks().values()).count("\ndef test_")
    assert f"{written} passed" in done.stdout
