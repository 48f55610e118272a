"""Attacks on the page by somebody who had not written it: each a hole that was there once."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from capwasm.admin import audits, render, server
from capwasm.admin.chains import Chains
from capwasm.admin.counts import Counts
from capwasm.events import DENIED, Event
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor
from capwasm.registry.model import State
from tests.admin.conftest import Office, office
from tests.admin.place import Reply, Site, Visitor, served
from tests.kit import guest

PLUGIN = "test.guest"
PLAIN = 'schema = 1\n[plugins."*".log]\n[[plugins."test.*".net]]\nallow = "https://api.example.com/v1/*"\n'
MORE = '[log]\n[[net]]\nallow = "https://api.example.com/v1/*"\n'


def shown(page: Reply) -> str:
    found = re.search(r'name="shown" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


def suspended_with_more_waiting(root: Path) -> Office:
    """1.0.0 is suspended; 1.1.0 asks for the network, and waits for a person to look at it."""
    made = office(root, PLAIN)
    take = made.registry.install
    take(made.world.capsule(guest("hostile")), who="eve")
    take(made.world.capsule(guest("hostile"), MORE, version="1.1.0"), who="eve")
    plugin = made.registry.show(PLUGIN)
    assert (plugin.serving, plugin.waiting) == ("1.0.0", "1.1.0")
    made.registry.suspend(PLUGIN, who="eve", why="it misbehaved")
    return made


def test_refuses_to_let_in_what_waits_by_resuming_what_was_suspended(tmp_path: Path) -> None:
    made = suspended_with_more_waiting(tmp_path)
    with served(made.home, user="olga") as site:
        visitor = Visitor(site)
        visitor.sign_in()
        page = visitor.get(f"/plugins/{PLUGIN}")
        assert "Have it serve again" in page.text
        assert (
            visitor.post(f"/plugins/{PLUGIN}/resume", {"form": page.form, "reason": "fixed"}).status
            == 303
        )
        plugin = made.registry.show(PLUGIN)
        assert (plugin.serving, plugin.state, plugin.waiting) == ("1.0.0", State.ACTIVE, "1.1.0")
        again = visitor.post(f"/plugins/{PLUGIN}/resume", {"form": page.form, "reason": "fixed"})
        assert again.code == "registry.state"
    made.close()


def test_refuses_to_activate_what_is_not_what_was_shown(tmp_path: Path) -> None:
    made = suspended_with_more_waiting(tmp_path)
    case = f"/reviews/{PLUGIN}/1.1.0"
    with served(made.home, user="olga") as site:
        visitor = Visitor(site)
        visitor.sign_in()
        page = visitor.get(case)
        fields = {"form": page.form, "reason": "fine", "shown": shown(page)}
        made.registry.reject(PLUGIN, who="eve", why="another one")
        wider = '[log]\n[[net]]\nallow = "https://api.example.com/*"\n'
        (made.home / "policy.toml").write_text(PLAIN.replace("/v1/*", "/*"))
        made.registry.install(
            made.world.capsule(guest("hostile"), wider, version="1.1.0"), who="eve"
        )
        assert visitor.post(f"{case}/activate", fields).code == "review.changed"
        assert made.registry.show(PLUGIN).waiting == "1.1.0"
        fields["shown"] = shown(visitor.get(case))
        assert visitor.post(f"{case}/activate", fields).status == 303
    made.close()


# -- the chain and the charts -----------------------------------------------------------------------

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    with AuditLog.open(tmp_path / "audit", Redactor()) as made:
        for number in range(30):
            made.record(Event("net", DENIED, "acme.a@1.0.0", "GET", f"t{number}"))
    return tmp_path / "audit"


@pytest.mark.case("LOG-10")
def test_refuses_to_call_intact_what_was_changed_since_it_was_checked(log: Path) -> None:
    chains = Chains({"runtime": log})
    assert chains.look("runtime", None, NOW).word == "intact"
    segment = log / "000001.jsonl"
    before = segment.stat()
    segment.write_bytes(segment.read_bytes().replace(b'"t7"', b'"x7"'))
    os.utime(segment, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert chains.look("runtime", None, LATER).word == "broken"


def test_refuses_to_call_intact_what_was_checked_in_the_future(log: Path) -> None:
    chains = Chains({"runtime": log})
    assert chains.look("runtime", None, LATER).word == "intact"
    segment = log / "000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"t7"', b'"x7"'))

    assert chains.look("runtime", None, NOW).word == "broken"


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("how", ["gone", "a link"])
def test_refuses_to_call_a_log_new_whose_records_are_gone(log: Path, how: str) -> None:
    segment = log / "000001.jsonl"
    segment.rename(log / "elsewhere")
    if how == "a link":
        segment.symlink_to(log / "elsewhere")

    assert Chains({"runtime": log}).look("runtime", None, NOW).word == "broken"


def test_allows_a_log_that_never_was(tmp_path: Path) -> None:
    assert Chains({"runtime": tmp_path / "none"}).look("runtime", None, NOW).word == "no log"


def denied(log: Path) -> int:
    chart = Counts(log).chart(None, "week", datetime.now(UTC))
    return next(s.total for s in chart.series if s.kind == "denied")


def test_refuses_to_hide_what_is_behind_a_broken_record_from_the_charts(log: Path) -> None:
    with AuditLog.open(log, Redactor()) as made:
        for number in range(1_500):
            made.note(Event("net", DENIED, "acme.a@1.0.0", "GET", f"u{number}"))
    assert denied(log) == 1_530
    segment = log / "000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"u1400"', b'"x1400"'))

    assert denied(log) == 1_529


# -- what has no sense --------------------------------------------------------------------------------


def test_refuses_a_day_beyond_the_calendar_without_a_defect(tmp_path: Path) -> None:
    made = suspended_with_more_waiting(tmp_path)
    case = f"/reviews/{PLUGIN}/1.1.0"
    with served(made.home, key=made.ann) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        page = visitor.get(case)
        fields = {"form": page.form, "reason": "r", "shown": shown(page), "what": "unreviewed"}
        reply = visitor.post(f"{case}/except", {**fields, "expires": "9999-12-31"})
        assert (reply.status, reply.code) == (400, "admin.request")
    made.close()


@pytest.mark.parametrize("when", ["0001-01-01T00+10:00", "9999-12-31T23-10:00", "9" * 40, "x"])
def test_refuses_to_fall_over_a_time_in_the_log(when: str) -> None:
    assert render._when(when)


def test_refuses_to_fall_over_nested_details() -> None:
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]

    assert audits._row({"details": {"deep": deep}})["details"]


# -- what a stranger can cost -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ['a="' + "\\" * 15_000 + '"', 'a="' + '\\"' * 7_500 + '"', "a=b;" * 3_800]
)
def test_refuses_to_read_a_cookie_slower_than_it_is_sent(visitor: Visitor, text: str) -> None:
    cookies = "; ".join(f"{n}={v}" for n, v in visitor.cookies.items())
    request = Request({"type": "http", "headers": [(b"cookie", f"{text}; {cookies}".encode())]})
    (name,) = (n for n in visitor.cookies if n.endswith("session"))
    page = visitor.site.page
    began = time.process_time()
    for _ in range(20):  # a square of its length would take seconds
        assert page._cookie(request, name) == visitor.cookies[name]
    assert time.process_time() - began < 1


def test_refuses_to_wait_for_who_asks_and_never_reads(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    ask = f"GET /static/style.css HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as line:
        line.sendall(ask * 700)
        time.sleep(2.0)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while part := line.recv(1 << 20):
                found += part
    assert found.count(b"HTTP/1.1 200") < 650
