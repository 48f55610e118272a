"""A real headless browser, and what is asked of each page that it shows."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHOTS = "CAPWASM_SCREENSHOTS"
"""Names a directory for screenshots; there are none without."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A browser; skips, saying why, where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    with api.sync_playwright() as play:
        # Its own sandbox can't be had by root; nothing but our own pages is opened.
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        made = play.chromium.launch(executable_path=found, args=args)
        try:
            yield made
        finally:
            made.close()


class Reader:
    """One window of it, that fails on whatever a page should not do."""

    def __init__(self, browser: Any, site: str, **options: Any) -> None:
        self.site = site.rstrip("/")
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda e: self.faults.append(f"error: {e}"))
        self.page.on("console", self._console)
        self.page.on("request", self._request)

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message: Any) -> None:
        # A page that is refused is told of by its status; that alone is not a fault.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(f"{self.site}/"):
            self.faults.append(f"went elsewhere: {request.url}")

    def open(self, path: str, status: int = 200) -> Any:
        """Go to a page."""
        answer = self.page.goto(self.site + path)
        assert answer.status == status, (path, answer.status, self.text)
        return self.page

    def press(self, name: str, *, within: str = "body") -> None:
        """Press a button by its name, and wait for the page that follows."""
        with self.page.expect_navigation():
            self.page.locator(within).get_by_role("button", name=name, exact=True).click()

    def shot(self, name: str) -> None:
        """Keep what is seen, if somebody wants to look at it."""
        if folder := os.environ.get(SHOTS):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    @property
    def text(self) -> str:
        return str(self.page.locator("main").inner_text())

    def check(self) -> None:
        """Nothing was wrong so far."""
        assert self.faults == []

    def close(self) -> None:
        self.context.close()


def headings_in_order(page: Any) -> bool:
    """Whether there is one first heading, and none leaves out a level."""
    levels = [int(t[1]) for t in page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter(h => h.checkVisibility())"
        ".map(h => h.tagName)"
    )]  # fmt: skip
    steps = itertools.pairwise(levels)
    return levels.count(1) == 1 and levels[0] == 1 and all(b <= a + 1 for a, b in steps)


def accessibility(page: Any, rules: list[str] | None = None) -> list[str]:
    """What axe finds wrong with a page: contrast, names, landmarks, tables, …; one line each.

    Args:
        page: as it is shown.
        rules: only these; all if None.
    """
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    found = (
        axe.Axe().run(page, options={"runOnly": rules} if rules else None).response["violations"]
    )
    return [
        f"{rule['id']}: {re.sub(chr(10), ' ', node['html'])[:160]}"
        for rule in found
        for node in rule["nodes"]
    ]
