"""From a submission to a revocation, in a real browser, with two reviewers and a core that runs it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.errors import CapwasmError
from tests.admin.browsing import Reader, accessibility, browser
from tests.admin.conftest import Office, office
from tests.kit import OPTIONAL, Prober, Refused, guest

PROGRAM = [sys.executable, "-c", "from capwasm.cli import main; main()"]
POLICY = """schema = 1
owner = "ops@acme.example"
review-by = "2090-01-31"
[review]
required = true
approvals = 2
[strikes]
suspend = 40
[consent]
automatic = ["log", "clock", "random", "config", "kv", "secret"]
[plugins."*".log]
[[plugins."test.*".net]]
allow = "https://api.example.com/v1/*"
[[plugins."test.*".fs]]
bind = "reports"
path = "{reports}"
access = "read-write"
"""
ASKS = """[[net]]
allow = "https://api.example.com/v1/*"
why = "Fetches the forecast."
[[fs]]
mount = "/data"
bind = "reports"
access = "read-write"
why = "Writes a report a day."
"""
ID = "test.prober"
CASE = f"/reviews/{ID}/1.0.0"
PLUGIN = f"/plugins/{ID}"


def command(home: Path, *args: str) -> str:
    done = subprocess.run(
        [*PROGRAM, *args, "--home", str(home)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def serving(home: Path, folder: Path, name: str) -> Iterator[str]:
    """`capwasm serve` with that reviewer's key: the address with its token, from the file."""
    file = folder / f"{name}.url"
    args = ["serve", "--key", str(folder / f"{name}.key"), "--port", "0", "--token-file", str(file)]
    process = subprocess.Popen(
        [*PROGRAM, *args, "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert f"signs as {name}" in process.stdout.readline()
        assert file.stat().st_mode & 0o777 == 0o600
        yield file.read_text().strip()
    finally:
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert "#" not in out  # the token stands in the file alone


def sign_in(reader: Reader, address: str) -> None:
    reader.page.goto(address)
    assert "#" not in reader.page.url  # gone from the history
    reader.press("Sign in")


def sign_in_without_script(reader: Reader, address: str) -> None:
    address, _, token = address.partition("#")
    reader.page.goto(address)
    reader.page.get_by_label("Token").fill(token)
    reader.press("Sign in")


def approve(reader: Reader, why: str) -> None:
    reader.open(CASE)
    reader.page.get_by_label("Why it may serve").fill(why)
    reader.page.get_by_label("I have looked at").check()
    reader.press("Sign the approval")
    assert "is signed and kept" in reader.text


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Office]:
    reports = tmp_path / "reports"
    reports.mkdir()
    made = office(tmp_path, POLICY.format(reports=reports))
    made.ann.save(tmp_path / "ann.key")
    made.bob.save(tmp_path / "bob.key")
    yield made
    made.close()


def test_a_plugin_from_its_submission_to_its_end(story: Office, tmp_path: Path) -> None:
    rest = "".join(text for word, text in OPTIONAL.items() if word not in ASKS)
    capsule = story.world.capsule(guest("prober"), ASKS + rest, id=ID)
    (tmp_path / "prober.capsule").write_bytes(capsule)

    # 1. It is submitted and scanned; it asks for the network and to write files.
    command(story.home, "submit", str(tmp_path / "prober.capsule"), "--reason", "ticket 41")
    command(story.home, "scan", f"{ID}@1.0.0")
    story.world.consent(capsule)
    runtime = story.world.runtime
    with pytest.raises(CapwasmError, match="waits for a person"):
        runtime.load_installed(ID)

    with contextlib.ExitStack() as stack:
        chromium = stack.enter_context(browser())
        one, two = (
            stack.enter_context(serving(story.home, tmp_path, name)) for name in ("ann", "bob")
        )
        ann = Reader(chromium, one.partition("/login")[0], viewport={"width": 1280, "height": 900})
        # Who has no script reads and decides as well.
        bob = Reader(chromium, two.partition("/login")[0], java_script_enabled=False)
        sign_in(ann, one)
        sign_in_without_script(bob, two)

        # 2. Ann sees what waits, what it asks for and what was found.
        assert ID in ann.text
        ann.shot("1-overview")
        ann.open("/reviews")
        ann.shot("2-queue")
        ann.page.get_by_role("link", name=f"{ID} 1.0.0").click()
        assert ann.page.url.endswith(CASE)
        text = ann.text
        assert "send GET, HEAD to https://api.example.com/v1/*" in text
        assert "read and change files under /data" in text
        assert text.count("high risk") >= 2
        assert "There is no SBOM" in text
        assert "it needs the approval of 2 reviewers" in text
        ann.shot("3-case")
        assert accessibility(ann.page) == []

        # 3. It takes two: neither Ann alone nor Ann twice.
        approve(ann, "Reads the forecast; the folder is its own.")
        assert ann.page.get_by_role("button", name="Have it serve").count() == 0
        ann.open(CASE)
        ann.page.get_by_label("Why it may serve").fill("again")
        ann.page.get_by_label("I have looked at").check()
        ann.press("Sign the approval")
        assert "review.twice" in ann.text
        approve(bob, "Agreed.")

        # 4. Now it may be activated, and a core loads it.
        bob.page.get_by_label("Why now").fill("Both have looked.")
        bob.press("Have it serve")
        assert "serves now" in bob.text
        ann.open(PLUGIN)
        assert ann.page.locator(".badge.active").first.is_visible()
        plugin = Prober(runtime.load_installed(ID))
        plugin("fs.write", "/data/report", "sunny")
        assert (tmp_path / "reports/report").read_text() == "sunny"

        # 5. It misbehaves, while Ann looks at its page: it is suspended before her eyes.
        denied = 0
        deadline = time.monotonic() + 30
        with contextlib.suppress(CapwasmError):
            while time.monotonic() < deadline:
                with contextlib.suppress(Refused):
                    plugin("fs.read", f"/etc/shadow-{denied}")
                denied += 1
        assert denied >= 40
        ann.page.locator(".head .badge.suspended").wait_for()
        text = ann.text
        assert "capwasm (strikes)" in text
        assert re.search(r"denied\s+\d+", text)
        ann.shot("5-suspended")
        with pytest.raises(CapwasmError, match="suspended"):
            runtime.load_installed(ID)

        # 6. Ann revokes it, for good.
        ann.page.get_by_text("Revoke 1.0.0 for good").click()
        ann.page.get_by_label("Why it must never run again").fill("It looked for passwords.")
        ann.page.get_by_label("I know that").check()
        ann.press("Revoke for good")
        assert "is revoked for good" in ann.text
        ann.shot("6-revoked")
        with pytest.raises(CapwasmError, match="looked for passwords"):
            runtime.load_installed(ID)

        # 7. The audit tells the story, in both logs, and each record has its page.
        told = []
        for query in ("log=commands&kind=install", "log=commands&kind=review", "kind=install"):
            ann.open(f"/audit?{query}&plugin={ID}")
            assert "chain intact" in ann.text
            told += ann.page.locator("table.audit td.wrap").all_inner_texts()
        ann.open(f"/audit?plugin={ID}&verdict=denied&text=shadow-3")
        assert "/etc/shadow-3" in ann.text
        ann.shot("7-audit")
        ann.page.locator("table.audit th a").first.click()
        assert "As it stands in the file" in ann.text
        ann.shot("8-record")
        told = sorted(text.split()[0] for text in told)
        assert told == [
            *("activated", "approve", "approved", "approved"),  # `approve`: what was refused
            *("revoked", "scanned", "submitted", "suspended"),
        ]
        ann.open(PLUGIN)
        history = ann.page.locator("section[aria-labelledby=history] tbody th").all_inner_texts()
        assert history[0] == "revoke"
        assert {"activate", "suspend"} <= set(history)
        for reader in (ann, bob):
            reader.check()
            reader.close()
