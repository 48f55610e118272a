"""From nothing to a running plugin in each language, in four commands: as the docs show it.

`docs/transcripts/LANGUAGE.txt` is what a terminal shows.  A test runs the same commands in a fresh
directory and holds what they print against it, but for times, sizes and what the machine decides.
`python -m tests.cli.test_transcripts --write LANGUAGE` makes the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from capwasm.authoring.builders import builder
from capwasm.authoring.scaffold import shipped_languages
from tests.builds import CACHE

PAGES = Path(__file__).parents[2] / "docs/transcripts"
LANGUAGES = sorted(page.stem for page in PAGES.glob("*.txt"))
COMMANDS = (
    "capwasm new greeter --lang {language}",
    "capwasm build greeter",
    "capwasm test greeter",
    "capwasm run --yes greeter greet Ada",
)
PROGRAM = "import sys; sys.argv[0] = 'capwasm'; from capwasm.cli import main; main()"

# What depends on the machine, or on what was compiled before: left out of the page.
_LEFT_OUT = re.compile(
    r"(platform |rootdir: |configfile: |plugins: |cachedir: |compil(ing|ed) |waiting for another|installing "
    r"|\s*(Compiling|Downloading|Downloaded|Updating|Locking|Adding|Finished|Blocking) ).*"
)
# What differs from run to run, and how it is written for the comparison.
_FIGURES = (
    (re.compile(r"\d+(\.\d+)? ?s\b"), "N s"),
    (re.compile(r"\d+(\.\d+)? MB\b"), "N MB"),
    (re.compile(r"\d+(\.\d+)? kB\b"), "N kB"),
    (re.compile(r"\d+ bytes\b"), "N bytes"),
    (re.compile(r"={3,}"), "==="),
)


def shown(output: str) -> str:
    """What a command printed, as the page has it."""
    lines = [line.rstrip() for line in output.splitlines() if not _LEFT_OUT.fullmatch(line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def compared(page: str) -> str:
    """A page without its figures and remarks."""
    text = "\n".join(line for line in page.splitlines() if not line.startswith("#"))
    for pattern, word in _FIGURES:
        text = pattern.sub(word, text)
    return text.strip("\n")


def played(language: str, root: Path) -> tuple[str, float]:
    """The transcript of the commands in that directory, and how many seconds they took."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "CAPWASM_", "COV"))}
    env |= {
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "COLUMNS": "80",
        "CAPWASM_HOME": str(root / "home"),
        "XDG_CACHE_HOME": str(CACHE / "cli"),
    }
    place = root / "fresh"
    place.mkdir()
    parts, began = [], time.monotonic()
    for command in COMMANDS:
        words = command.format(language=language).split()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words[1:]],
            cwd=place,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}"
        parts.append(f"$ {' '.join(words)}\n{shown(done.stdout)}")
    return "\n\n".join(parts) + "\n", time.monotonic() - began


def missing(language: str) -> str:
    """Why it can't be played here, with the commands that change that; or nothing."""
    lacking = [tool for tool in builder(language).tools() if tool.found is None]
    return "; ".join(f"{tool.name}: {tool.install}" for tool in lacking)


@pytest.mark.parametrize("language", LANGUAGES)
def test_four_commands_show_what_the_page_shows(language: str, tmp_path: Path) -> None:
    if why := missing(language):
        pytest.skip(why)

    text, _ = played(language, tmp_path)

    assert compared(text) == compared((PAGES / f"{language}.txt").read_text(encoding="utf-8"))
    # Nothing was made but the project and the capsule.
    assert sorted(p.name for p in (tmp_path / "fresh").iterdir()) == [
        "example.greeter-0.1.0.capsule",
        "greeter",
    ]
    assert not (tmp_path / "home").exists()


def test_every_language_that_is_shipped_has_its_page() -> None:
    assert [name for name in shipped_languages() if name not in LANGUAGES] == [], (
        "run: python -m tests.cli.test_transcripts --write LANGUAGE"
    )


def write(language: str) -> None:
    """Make the page of a language."""
    with tempfile.TemporaryDirectory() as root:
        text, seconds = played(language, Path(root))
    head = (
        "# Two shared cores of an x86-64 server, the toolchain installed and a plugin in that language"
        f" built before: {seconds:.0f} s.\n\n"
    )
    PAGES.mkdir(exist_ok=True)
    (PAGES / f"{language}.txt").write_text(head + text, encoding="utf-8")


if __name__ == "__main__" and "--write" in sys.argv:
    for name in sys.argv[sys.argv.index("--write") + 1 :]:
        write(name)
