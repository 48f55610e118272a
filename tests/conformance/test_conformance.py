"""The conformance plugin does the same in every language, and docs/languages.md says so."""

from __future__ import annotations

import pytest

from .column import PARTS, ROWS
from .languages import LANGUAGES, PAGE, TITLES, marks_of, page, part_of, read_page


def runnable(language: str) -> None:
    if reason := LANGUAGES[language].why_not():
        pytest.skip(f"{TITLES[language]}: {reason}")


@pytest.mark.parametrize("row", [f"{part} {row}" for part in PARTS for row in ROWS[part]])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_case_of_a_row(language: str, row: str) -> None:
    runnable(language)
    part, _, name = row.partition(" ")
    assert part_of(language, part)[name].faults == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_what_the_tests_found(language: str) -> None:
    runnable(language)
    assert read_page()[language] == marks_of(language), (
        "run: python -m tests.conformance.languages --write"
    )


def test_the_page_is_made_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read_page())
