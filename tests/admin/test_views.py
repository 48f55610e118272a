"""What the pages show is what is there: the audit, its chain, the counts, the policy's date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from capwasm.admin.charts import HEIGHT, WIDTH, Series, bars, nice
from capwasm.admin.counts import Counts
from capwasm.events import ALLOWED, DENIED, FAILED, Event
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor
from capwasm.record.search import search
from tests.admin.conftest import POLICY, Office, office
from tests.admin.place import Visitor, served

NAME = "acme.weather@1.2.0"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Office]:
    made = office(tmp_path)
    yield made
    made.close()


def record(made: Office, *events: Event) -> None:
    key = made.home / "audit.key"
    if not key.exists():
        made.bob.save(key)
    with AuditLog.open(made.home / "audit", Redactor(), key=made.bob) as log:
        for event in events:
            log.record(event)


# -- the chain --------------------------------------------------------------------------------------


@pytest.mark.case("LOG-10")
def test_a_changed_record_breaks_the_chain_on_every_page_that_tells_of_it(home: Office) -> None:
    record(home, *(Event("load", ALLOWED, NAME, target=f"t{n}") for n in range(20)))
    with served(home.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        assert "chain intact" in visitor.get("/audit").text
        assert "signed by this home" in visitor.get("/audit").text
        (segment,) = (p for p in (home.home / "audit").iterdir() if p.stem.isdecimal())
        data = segment.read_bytes()
        segment.write_bytes(data.replace(b'"t7"', b'"x7"'))

        done = visitor.post("/audit/runtime/verify", {"form": visitor.form})
        told = visitor.get(done.headers["location"]).text
        assert "The chain was checked: broken" in told
        assert "chain broken" in told
        assert re.search(r"record \d+: changed", told)
        assert ">broken" in visitor.get("/").text.replace("</svg> ", ">")
        seq = next(r["seq"] for r in search(home.home / "audit").records if r.get("target") == "t8")
        assert "changed" in visitor.get(f"/audit/runtime/{seq - 1}").text
        assert "chain broken" in visitor.get(f"/audit/runtime/{seq}").text
        segment.write_bytes(data)
        visitor.post("/audit/runtime/verify", {"form": visitor.form})
        assert "chain intact" in visitor.get("/audit").text


def test_a_log_that_is_not_there_is_no_fault(home: Office) -> None:
    with served(home.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        assert "nothing was recorded yet" in visitor.get("/audit").text
        assert visitor.post("/audit/runtime/verify", {"form": visitor.form}).status == 303
        assert "chain intact" in visitor.get("/audit?log=commands").text


# -- the search -------------------------------------------------------------------------------------


def test_the_audit_is_read_page_by_page_to_its_beginning(home: Office) -> None:
    record(home, *(Event("net", DENIED, NAME, "GET", f"https://h{n}/") for n in range(120)))
    with served(home.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        path, seen = "/audit?kind=net", []
        for _ in range(10):
            text = visitor.get(path).text
            seen += re.findall(r"https://h(\d+)/", text)
            older = re.search(r'href="([^"]+)" rel="next"', text)
            if older is None:
                break
            path = older[1].replace("&amp;", "&")
        assert [int(n) for n in seen] == list(range(119, -1, -1))
        assert visitor.get("/audit?before=nonsense").code == "admin.not-found"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"a", "b", "c"}),
        ("verdict=denied", {"a"}),
        ("kind=call", {"b"}),
        ("plugin=acme.other", {"c"}),
        ("text=EVIL", {"a"}),
        ("since=1h", {"a", "b", "c"}),
        ("until=2020-01-01", set()),
        ("plugin=acme", set()),
    ],
)
def test_the_audit_is_searched_by_each_word(home: Office, query: str, expected: set[str]) -> None:
    record(
        home,
        Event("net", DENIED, NAME, "GET", "target-a", "evil"),
        Event("call", FAILED, NAME, "api.run", "target-b", "guest.trap"),
        Event("load", ALLOWED, "acme.other@1.0.0", "load", "target-c"),
    )
    with served(home.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        text = visitor.get(f"/audit?{query}").text

    assert set(re.findall(r"target-([abc])", text)) == expected


@pytest.mark.parametrize("query", ["kind=nonsense", "verdict=maybe", "log=other", "since=soon"])
def test_refuses_to_search_by_words_that_there_are_not(home: Office, query: str) -> None:
    with served(home.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        assert visitor.get(f"/audit?{query}").code == "admin.request"


# -- the counts -------------------------------------------------------------------------------------


def test_calls_and_denials_are_counted_with_those_that_stand_for_many(home: Office) -> None:
    record(
        home,
        Event("call", ALLOWED, NAME, "api.run", details={"calls": 812, "ms": 9.4}),
        Event("call", ALLOWED, NAME, "api.run", details={"ms": 9.4}),
        Event("call", FAILED, NAME, "api.run"),
        Event("net", DENIED, NAME, "GET", details={"times": 40}),
        Event("net", DENIED, "acme.other@1.0.0", "GET"),
        Event("call", ALLOWED, NAME, details={"calls": -5}),
        Event("call", ALLOWED, NAME, details={"calls": "many"}),
    )
    counts, now = Counts(home.home / "audit"), datetime.now(UTC)
    for span in ("day", "week"):
        one, whole = (counts.chart(p, span, now) for p in ("acme.weather", None))
        assert [s.total for s in one.series] == [815, 1, 40]
        assert [s.total for s in whole.series] == [815, 1, 41]
        assert one.told.endswith("815 went well, 1 failed, 40 denied.")
        assert sum(sum(values) for _, values in one.rows) == 856
    record(home, Event("call", FAILED, NAME))
    assert counts.chart("acme.weather", "day", now).series[1].total == 2
    assert counts.chart("acme.weather", "day", now + timedelta(days=2)).is_empty
    assert counts.chart("acme.nobody", "day", now).is_empty
    assert not counts.partial


@pytest.mark.parametrize(
    ("most", "top"),
    [(1, 1), (2, 2), (3, 5), (5, 5), (6, 10), (11, 20), (999, 1000), (10**6, 10**6)],
)
def test_an_axis_ends_at_a_round_number(most: int, top: int) -> None:
    assert nice(most) == top


def test_bars_stay_within_the_chart_and_what_is_not_zero_can_be_seen() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    series = [Series("a", "calls", (0, 1, 10**6)), Series("b", "denied", (0, 1, 0))]
    chart = bars("x", series, begin, timedelta(hours=1), every=1)

    assert len(chart.bars) == 3
    for bar in chart.bars:
        assert bar.x >= 0
        assert bar.x + bar.width <= WIDTH
        assert bar.y >= 0
        assert bar.y + bar.height <= HEIGHT
        assert bar.height >= 2
    assert chart.rows == [("2026-01-01 01:00", (1, 1)), ("2026-01-01 02:00", (10**6, 0))]


# -- the policy -------------------------------------------------------------------------------------


def test_every_page_warns_of_a_policy_that_is_due_and_of_no_other(home: Office) -> None:
    with served(home.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        for day, due in (("2090-01-31", False), ("2020-01-31", True)):
            (home.home / "policy.toml").write_text(POLICY.replace("2090-01-31", day))
            for path in ("/", "/plugins", "/about"):
                text = visitor.get(path).text
                assert ("was to be looked at again by 2020-01-31" in text) is due
            assert ("overdue" in visitor.get("/policy").text) is due


def test_the_policy_page_tells_each_rule_with_its_line(home: Office) -> None:
    text = POLICY + '[[deny.net]]\nallow = "https://*.internal.example"\nmethods = ["*"]\n'
    (home.home / "policy.toml").write_text(text)
    with served(home.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        page = visitor.get("/policy").text

    assert "ops@acme.example" in page
    assert "send GET, HEAD to https://api.example.com/v1/*" in page
    assert re.search(r"every plugin.*?deny.*?internal\.example", page, re.DOTALL)
    line = text.splitlines().index("[[deny.net]]") + 1
    assert f"line {line}" in page


def test_the_stamp_differs_once_something_changed(home: Office) -> None:
    from tests.kit import guest

    home.registry.install(home.world.capsule(guest("hostile")), who="eve")
    with served(home.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        before = visitor.get("/stamp").text
        assert visitor.get("/stamp").text == before
        assert f'data-stamp="{before}"' in visitor.get("/").text
        home.registry.kill("test.guest", who="ann", why="hangs")
        assert visitor.get("/stamp").text != before


# -- the docs ---------------------------------------------------------------------------------------


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/admin.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "docs/admin.md", "exec"), names)
    assert names["core"] is not None
