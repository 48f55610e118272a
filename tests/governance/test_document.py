"""`capwasm policy doc`: what developers are told, and what they are not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.caps import standard_capabilities
from capwasm.cli import capwasm
from capwasm.governance.document import policy_page
from capwasm.governance.pages import Grid, Mono, Page, Text, as_html, as_markdown
from capwasm.governance.published import HIDDEN, in_words
from capwasm.governance.published import settings as words_of
from capwasm.grants.policy import Policy
from tests.governance.test_lint import CLEAN
from tests.toycaps import BellClause

KNOWN = standard_capabilities()
# What stands for what must not be published: each is in the policy below, once.
HOST = (
    *(
        "/srv/hidden-dir",
        "/opt/hidden-program",
        "/srv/hidden-read",
        "hidden-word",
        "hidden-pattern",
    ),
    *("hidden-value", "10.77.0.0/16", "10.88.0.0", "10.99.0.0", "feeds.hidden.example"),
    *("hidden-list.txt", "hidden comment", "ab" * 32, "127.0.0.1", "/srv/hidden-deny"),
)
POLICY = f"""schema = 1  # hidden comment
owner = "Plugins <script>alert(1)</script> | *team* [x](https://evil.example)"
review-by = "2027-06-30"
[consent]
automatic = ["log", "config"]
[revocation]
url = "https://feeds.hidden.example/feed"
[scan]
known-bad = "hidden-list.txt"
[isolation]
process = ["vendor.*"]
native = ["vendor.codec"]
legacy = ["sha256:{"ab" * 32}"]
[limits]
memory = 268435456
[[deny.fs]]
path = "/srv/hidden-deny"
[[deny.net]]
allow = "https://10.99.0.0/16"
[plugins."*".log]
[plugins."acme.*".config]
values = {{ units = "hidden-value" }}
[[plugins."acme.weather".fs]]
bind = "app-data"
path = "/srv/hidden-dir"
access = "read-write"
quota = "100MiB"
[[plugins."acme.weather".net]]
allow = "https://api.acme.com/v1/*"
addresses = ["10.77.0.0/16"]
[[plugins."acme.weather".net]]
allow = "https://10.88.0.0/16:8443"
methods = ["*"]
[[plugins."acme.weather".net]]
allow = "http://127.0.0.1:9999"
[[plugins."acme.weather".secret]]
name = "weather-token"
use = "inject"
for = ["https://api.acme.com"]
header = "Authorization: Bearer {{}}"
[[plugins."acme.weather".exec]]
command = "thumbnail"
program = "/opt/hidden-program"
reads = ["/srv/hidden-read"]
arguments = ["hidden-word", "{{size:[0-9]{{1,4}}}}", "{{file:/hidden-pattern/[a-z]+}}"]
[plugins."acme.weather".limits]
memory = 134217728
[plugins."acme.none".deny.kv]
"""


def policy(text: str = POLICY) -> Policy:
    return Policy.load(text.encode(), KNOWN)


def both(text: str = POLICY, *, internal: bool = False) -> list[str]:
    page = policy_page(policy(text), KNOWN, internal=internal)
    return [as_markdown(page), as_html(page)]


def test_developers_are_told_what_they_may_do() -> None:
    for text in both():
        plain = text.replace("\\", "")
        for said in (
            "2027-06-30",
            "Every plugin whose id begins with acme.",
            "app-data, at most 100MiB",
            "in a directory that the operator chose",
            "send GET, HEAD to https://api.acme.com/v1/*, also where the name leads into networks of",
            "send any method to a network of the operator",
            "weather-token",
            "run the command thumbnail, with values for {size:[0-9]{1,4}}, file",
            "128 MiB",
            "the policy consents by itself",
            "vendor.codec",
            "capwasm grants explain plugin.toml",
            "[[exec]]",
        ):
            assert said in plain, said


def test_what_lies_on_the_host_is_not_published() -> None:
    for text in both():
        assert [word for word in HOST if word in text] == []
        assert policy().digest not in text
        assert "Left out are" in text
        assert "evict" not in text  # what to stay below


def test_internally_all_but_comments_is_shown() -> None:
    for text in both(internal=True):
        assert "evict" in text
        plain = text.replace("\\", "")
        assert [word for word in HOST if word not in plain] == ["hidden comment"]
        assert policy().digest in plain


def test_what_is_of_a_kind_that_is_not_known_is_left_out() -> None:
    clause = BellClause("hidden-tune")
    assert "hidden-tune" not in in_words(clause, internal=False)
    assert "hidden-tune" in in_words(clause, internal=True)
    rule = policy().revocation
    public = {word: value for word, value, _ in words_of(rule, internal=False)}
    assert (public["url"], public["stale"], public["max-age-hours"]) == (HIDDEN, "report", "24")
    assert dict(row[:2] for row in words_of(rule, internal=True))["url"] == rule.url


def test_the_same_policy_gives_the_same_bytes() -> None:
    assert both() == both()
    assert all(str(date.today().year + 3) not in text for text in both())  # noqa: DTZ011


def test_a_policy_that_allows_nothing_says_so() -> None:
    for text in both("schema = 1\n"):
        assert "Nothing: no rule allows anything to any plugin." in text
        assert "nobody is named" in text


class _Reader(HTMLParser):
    """Refuses what is not balanced; keeps names of elements, ids, links and text."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


ELEMENTS = frozenset(
    """a body code div h1 h2 h3 head header html li main meta nav ol p pre span style table tbody td th
    thead title tr ul""".split()  # noqa: SIM905  a list of words
)


def test_the_page_is_sound_and_loads_nothing() -> None:
    html = both()[1]
    found = read(html)

    assert found.elements <= ELEMENTS
    ids = [value for name, value in found.attributes if name == "id"]
    links = [value for name, value in found.attributes if name == "href"]
    assert len(ids) == len(set(ids))
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert not {"src", "style", "onclick", "onload"} & {name for name, _ in found.attributes}
    assert "default-src 'none'" in html
    assert "url(" not in html
    assert "@import" not in html
    assert 'lang="en"' in html
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html


def test_no_text_of_the_policy_is_markup() -> None:
    markdown, html = both()
    assert "<script>" not in html
    assert "Plugins &lt;script&gt;alert(1)&lt;/script&gt; | *team*" in html
    row = next(line for line in markdown.splitlines() if "alert" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 3  # the borders of two cells
    assert "](" not in row.replace("\\]", "")
    assert "\\<script" in row


@given(st.text(max_size=60), st.sampled_from([Text, Mono]))
@settings(max_examples=200, deadline=None)
def test_whatever_stands_in_a_cell_stays_in_it(text: str, kind: Any) -> None:
    page = Page("t", (Grid(("a", "b"), ((kind(text), Text("end")),)),))
    row = as_markdown(page).rstrip("\n").splitlines()[-1]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
    assert row.endswith("| end |")
    found = read(as_html(page))
    assert found.elements <= ELEMENTS
    assert "end" in found.text


def run(*args: str, code: int = 0) -> str:
    done = CliRunner().invoke(capwasm, ["policy", "doc", *args])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPWASM_HOME", str(tmp_path))
    path = tmp_path / "policy.toml"
    path.touch(mode=0o600)
    path.write_text(POLICY)
    return path


def test_the_command_writes_either_form(file: Path, tmp_path: Path) -> None:
    markdown, html = both()
    assert run(str(file)) == run() == markdown
    assert run(str(file), "--format", "html") == html
    for name, text in (("p.html", html), ("p.md", markdown), ("p", markdown)):
        run(str(file), "-o", str(tmp_path / name))
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert "/srv/hidden-dir" in run(str(file), "--internal")
    run(str(file), "-o", str(tmp_path / "gone" / "p.md"), code=1)
    data = json.loads(run("--json"))
    assert data["title"] == "What plugins may do here"
    assert {b["kind"] for b in data["blocks"]} == {"heading", "text", "items", "grid", "code"}
    assert not [word for word in HOST if word in json.dumps(data)]
    assert json.loads(run("--json", "-o", str(tmp_path / "p.html")))["format"] == "html"


def test_the_command_refuses_what_is_no_policy(file: Path) -> None:
    file.write_text("schema = 1\ncoffee = 1\n")
    run(str(file), code=1)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium here")
def test_a_browser_shows_no_text_wider_than_the_page(tmp_path: Path) -> None:
    """Laid out by a real browser: nothing hangs over the edge of a narrow screen, but scrolls."""
    page = as_html(policy_page(policy(CLEAN + "# x\n"), KNOWN))
    probe = (
        "<script>document.title = [document.documentElement.scrollWidth <= innerWidth,"
        " document.querySelectorAll('table').length > 10].join()</script>"
    )
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "p.html").write_text(html.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900"),
            *(
                f"--user-data-dir={tmp_path / 'profile'}",
                "--dump-dom",
                f"file://{tmp_path / 'p.html'}",
            ),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "<title>true,true</title>" in done.stdout
