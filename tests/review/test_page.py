"""docs/review.md: its worked example, run as it stands."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from capwasm.capsule.keys import PrivateKey
from capwasm.cli import capwasm
from capwasm.grants.review import ReviewRule
from tests.kit import guest

PAGE = (Path(__file__).parents[2] / "docs/review.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"# exit (\d+)(?:  (review\.[a-z]+))?")


def test_the_worked_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPWASM_HOME", "home")
    Path("home").mkdir(mode=0o700)
    Path("weather").mkdir()
    Path("weather/plugin.wasm").write_bytes(guest("hostile"))
    keys = {name: PrivateKey.generate() for name in ("acme", "ann", "bob", "sue", "eve")}
    for name, key in keys.items():
        key.save(f"{name}.key")
    soon = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    lines = 0
    for language, block in BLOCK.findall(PAGE):
        if language == "toml":
            text = re.sub(r"PUBLIC OF (\w+)", lambda m: keys[m[1]].public.base64(), block)
            Path(block.split("\n")[0].removeprefix("# ")).write_text(text)
            continue
        for line in block.splitlines():
            wanted = EXIT.search(line)
            words = shlex.split(line.replace("IN-A-MONTH", soon), comments=True)
            assert words[0] == "capwasm"
            done = CliRunner().invoke(capwasm, words[1:])
            code = int(wanted[1]) if wanted else 0
            assert done.exit_code == code, f"{line}\n{done.output}{done.stderr}"
            if wanted and wanted[2]:
                assert f"[{wanted[2]}]" in done.stderr, f"{line}\n{done.stderr}"
            lines += 1
    assert lines > 15


def test_the_page_names_the_words_of_the_policy() -> None:
    words = {name.replace("_", "-") for name in ReviewRule.model_fields}
    assert {w for w in words if f"`{w}" not in PAGE and f"] {w}`" not in PAGE} == set()
