"""The languages of the conformance plugin, and `docs/languages.md`, which the tests make.

    python -m tests.conformance.languages [LANGUAGE…]            run their columns
    python -m tests.conformance.languages --write [LANGUAGE…]    and write them to the page

A language takes part by having a project in `guest-sdk/conformance/<language>/`.  A column that can't be
run here stays on the page as it was.
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.builds import REPOSITORY, component, missing

from .column import PARTS, ROWS, Part, run_part

PAGE: Final = REPOSITORY / "docs/languages.md"
PROJECTS: Final = REPOSITORY / "guest-sdk/conformance"
COMMITTED: Final = REPOSITORY / "tests/guests"
TITLES: Final = {"python": "Python", "js": "JavaScript", "rust": "Rust", "go": "Go", "c": "C"}
PASS, FAIL, NONE = "✓", "✗", "–"
PART_TITLES: Final = {
    "types": ("Types", "There and back: the least and the largest value, and what is between."),
    "operations": (
        "Capabilities",
        "What is granted works, and what is not, or is malformed, is refused with its word.",
    ),
    "ungranted": ("Nothing granted", "The plugin runs, and is told `denied`."),
    "limits": (
        "Limits",
        "What goes over ends the call with the error of that limit, and the next call is served.",
    ),
}


@dataclass(frozen=True)
class Language:
    """One of `TITLES`: where its plugin is, and how to come by the component."""

    name: str

    @property
    def project(self) -> Path:
        return PROJECTS / self.name

    @property
    def committed(self) -> Path:
        """The component in the repository, for languages whose components are small."""
        return COMMITTED / f"conformance-{self.name}.wasm"

    def why_not(self) -> str:
        """Why its column can't be run here, with the commands that change it; or nothing."""
        return "" if self.committed.exists() else missing(self.project)

    def component(self) -> bytes:
        """The committed component, or one built of the project.

        Raises:
            BuildError: it does not build.
        """
        if self.committed.exists():
            return self.committed.read_bytes()
        return component(self.project)


LANGUAGES: Final = {
    name: Language(name) for name in TITLES if (PROJECTS / name / "plugin.toml").exists()
}


@cache
def part_of(language: str, part: str) -> Part:
    """A part of a language's column; run when first asked for."""
    return run_part(part, language, LANGUAGES[language].component())


# -- the page --------------------------------------------------------------------------------------

Marks = dict[str, dict[str, str]]  # language → row → what its cell says
HEAD: Final = """# What works in which language

One [conformance plugin](../guest-sdk/conformance/README.md), written in each language with that
language's SDK, goes through one table of cases. This page is what came of it:
`python -m tests.conformance.languages --write` makes it, and the tests hold it.

✓ all cases of the row pass; ✗ some fail; – not run yet. A number is a note below the table.
"""


def marks_of(language: str) -> dict[str, str]:
    """A column that was run, as the page shows it."""
    return {
        f"{part} {row}": (FAIL if cell.faults else PASS) + (f" {cell.shown}" if cell.shown else "")
        for part in PARTS
        for row, cell in part_of(language, part).items()
    }


def read_page() -> Marks:
    """What the page says now."""
    marks: Marks = {name: {} for name in TITLES}
    if not PAGE.exists():
        return marks
    by_title = {title: name for name, title in TITLES.items()}
    parts = {title: part for part, (title, _) in PART_TITLES.items()}
    part, columns, notes = "", [], {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            part, notes = parts.get(line[3:], ""), {}
        elif found := re.fullmatch(r"(\d+)\. (.*)", line):
            notes[found[1]] = found[2]
            for name in TITLES:
                marks[name] = {
                    row: mark.replace(f" <sup>{found[1]}</sup>", f" {found[2]}")
                    if row.startswith(f"{part} ")
                    else mark
                    for row, mark in marks[name].items()
                }
        elif line.startswith("| ") and part:
            cells = [c.strip() for c in line.strip("|").split("|")]
            if cells[0].startswith("`"):
                for name, cell in zip(columns, cells[1:], strict=True):
                    marks[name][f"{part} {cells[0].strip('`')}"] = cell
            elif cells[1] in by_title:
                columns = [by_title[c] for c in cells[1:]]
    return marks


def page(marks: Marks) -> str:
    """The page's text."""
    lines = [HEAD]
    for part, (title, about) in PART_TITLES.items():
        lines += [f"## {title}", "", about, ""]
        lines.append(f"| | {' | '.join(TITLES.values())} |")
        lines.append(f"| --- |{' :-: |' * len(TITLES)}")
        notes: list[str] = []
        for row in ROWS[part]:
            cells = [_cell(marks[name].get(f"{part} {row}", NONE), notes) for name in TITLES]
            lines.append(f"| `{row}` | {' | '.join(cells)} |")
        lines.append("")
        if notes:
            lines += [*(f"{n}. {note}" for n, note in enumerate(notes, 1)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _cell(mark: str, notes: list[str]) -> str:
    sign, _, note = mark.partition(" ")
    if not note:
        return sign
    if note not in notes:
        notes.append(note)
    return f"{sign} <sup>{notes.index(note) + 1}</sup>"


def main(arguments: list[str]) -> int:
    """Run columns; write the page if asked to."""
    wanted = [a for a in arguments if a in LANGUAGES] or list(LANGUAGES)
    marks, failed = read_page(), False
    for name in wanted:
        if reason := LANGUAGES[name].why_not():
            sys.stdout.write(f"{name}: {reason}\n")
            continue
        began = time.monotonic()
        marks[name] = marks_of(name)
        for part in PARTS:
            for row, cell in part_of(name, part).items():
                failed |= bool(cell.faults)
                for fault in cell.faults:
                    sys.stdout.write(f"{name}: {part}: {row}: {fault}\n")
        sys.stdout.write(f"{name}: {time.monotonic() - began:.1f} s\n")
    if "--write" in arguments:
        PAGE.write_text(page(marks), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
