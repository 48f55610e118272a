"""`capwasm audit head | anchor | export | prune`, and `verify` of what they give."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.capsule.keys import PrivateKey
from capwasm.cli import capwasm
from capwasm.events import ALLOWED, DENIED, Event
from capwasm.home import Home
from capwasm.record import _read, export
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor
from capwasm.record.search import Query

HOSTILE = (
    "=1+1",
    "+1",
    "-1",
    "@x",
    "\t=1",
    "  =1",
    "=cmd|' /C calc'!A0",
    "|x",
    "%x",
    "\r=1",
    "＝1",
)


def run(*words: object) -> Result:
    return CliRunner().invoke(capwasm, ["audit", *map(str, words)])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose log has some 90 records in several segments, and its public key beside it."""
    place = Home(tmp_path / "home")
    place.root.mkdir(mode=0o700)
    place.open_audit(place.audit).close()
    key = PrivateKey.load(place.audit_key)
    (tmp_path / "audit.pub").write_bytes(key.public.pem())
    with AuditLog.open(place.audit, Redactor(), key=key, segment_bytes=8_000) as log:
        for n in range(60):
            log.record(Event("call", ALLOWED, "acme.a@1.0.0", f"fetch-{n}", details={"ms": n}))
            if n % 20 == 0:
                log.flush()
        for text in HOSTILE:
            log.record(Event("fs", DENIED, "acme.b@2.0.0", text, text, text, {text: text}))
    return place.root


def verify(home: Path, *words: object) -> dict[str, Any]:
    done = run("verify", *words, "--key", home.parent / "audit.pub", "--home", home, "--json")
    data = json.loads(done.output)
    assert done.exit_code == (0 if data["ok"] else 1)
    return dict(data)


# -- heads -----------------------------------------------------------------------------------------


def test_allows_heads_to_be_kept_elsewhere_and_held_against_the_log(home: Path) -> None:
    kept = home.parent / "heads.jsonl"
    for _ in range(2):
        assert run("anchor", "--home", home, "--append", kept).exit_code == 0
        with Home(home).open_audit(home / "audit") as log:
            log.record(Event("fs", DENIED))
    lines = kept.read_text().splitlines()
    assert len(lines) == 2
    head = run("head", "--home", home).output.strip()
    data = json.loads(run("head", "--home", home, "--json").output)
    assert head == f"{data['seq']}:{data['hash']}"
    report = verify(home, "--head", kept, "--head", head)
    assert (report["ok"], report["heads"]) == (True, 3)


@pytest.mark.case("LOG-10")
def test_refuses_an_older_copy_of_the_whole_log(home: Path) -> None:
    before = {f: f.read_bytes() for f in (home / "audit").iterdir()}
    with Home(home).open_audit(home / "audit") as log:
        log.record(Event("fs", DENIED))
    kept = home.parent / "heads.jsonl"
    kept.write_text(run("anchor", "--home", home).output)
    for file in (home / "audit").iterdir():
        file.write_bytes(before[file])
    assert verify(home)["ok"]  # nothing in it tells
    report = verify(home, "--head", kept)
    assert [p["kind"] for p in report["problems"]] == ["cut"]


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize(
    "change", [{"seq": 3}, {"hash": "0" * 64}, {"time": "now"}, {"log": "x"}, {"key": "x"}]
)
def test_refuses_a_head_whose_signature_does_not_hold(home: Path, change: dict[str, Any]) -> None:
    kept = home.parent / "heads.jsonl"
    kept.write_text(json.dumps(json.loads(run("anchor", "--home", home).output) | change))
    done = run("verify", "--home", home, "--key", home.parent / "audit.pub", "--head", kept)
    assert done.exit_code == 1
    assert "error [audit.head]" in done.output


@pytest.mark.parametrize("text", ["", "{}", "[" * 5000, '{"seq":1}', "1:2", "\0", '{"log":1}'])
def test_refuses_a_file_that_holds_no_heads(home: Path, text: str) -> None:
    kept = home.parent / "heads.jsonl"
    kept.write_text(text)
    done = run("verify", "--home", home, "--head", kept)
    assert done.exit_code == 1
    assert "error [audit.head]" in done.output


@pytest.mark.case("LOG-10")
def test_refuses_to_sign_a_head_that_is_not_there(home: Path) -> None:
    (home / "audit" / max(p.name for p in (home / "audit").glob("*.jsonl"))).write_bytes(b"")
    done = run("anchor", "--home", home)
    assert done.exit_code == 1
    assert "error [audit.tampered]" in done.output


def test_refuses_to_anchor_without_a_key_or_a_place(home: Path) -> None:
    done = run("anchor", "--home", home, "--append", home.parent / "none" / "heads")
    assert "error [audit.head]" in done.output
    (home / "audit.key").unlink()
    assert run("anchor", "--home", home).exit_code == 1


# -- export ----------------------------------------------------------------------------------------


def exported(home: Path, *words: object) -> Path:
    out = home.parent / "out"
    done = run("export", "--home", home, "-o", out, *words)
    assert done.exit_code == 0, done.output
    assert out.stat().st_mode & 0o777 == 0o600
    assert not list(home.parent.glob(".out*"))
    return out


def test_allows_an_export_to_be_verified_on_another_machine(home: Path) -> None:
    out = exported(home)
    report = verify(home, out)
    assert (report["ok"], report["first"], report["signed_to"]) == (
        True,
        1,
        report["head"]["seq"],
    )
    head = run("head", "--home", home).output.strip()
    assert verify(home, out, "--head", head)["ok"]
    assert run("verify", out).exit_code == 0
    assert run("export", "--home", home).output.count('"capwasm-audit-export"') == 1


def test_allows_a_span_of_time_in_the_middle(home: Path) -> None:
    records = [
        json.loads(x) for x in run("tail", "--home", home, "-n", 80, "--json").output.splitlines()
    ]
    since, until = records[20]["time"][:26] + "Z", records[50]["time"][:26] + "Z"
    out = exported(home, "--since", since, "--until", until)
    report = verify(home, out)
    assert report["ok"], report["problems"]
    assert 25 < report["records"] < 35
    heads = [f"{r['seq']}:{'0' * 64}" for r in (records[0], records[-1])]
    assert verify(home, out, "--head", heads[0], "--head", heads[1])["ok"]  # of records not in it
    assert not verify(home, out, "--head", f"{records[30]['seq']}:{'0' * 64}")["ok"]


@pytest.mark.parametrize(
    "words",
    [["--plugin", "acme.b"], ["--kind", "fs"], ["--verdict", "denied"], ["--text", "FETCH-5"]],
    ids=lambda w: w[0],
)
def test_refuses_a_filtered_export_as_a_chain(home: Path, words: list[str]) -> None:
    out = exported(home, *words)
    lines = out.read_text().splitlines()
    assert len(lines) == 2 + 11
    assert json.loads(lines[0])["complete"] is False
    done = run("verify", out)
    assert done.exit_code == 1
    assert "error [audit.export]" in done.output
    assert "filtered" in done.output


def damaged(lines: list[bytes]) -> Iterator[tuple[str, str, list[bytes]]]:
    def changed(at: int, old: bytes, new: bytes) -> list[bytes]:
        assert old in lines[at]
        return [*lines[:at], lines[at].replace(old, new), *lines[len(lines[:at]) + 1 :]]

    yield "a record changed", "changed", changed(9, b'"mono"', b'"mona"')
    yield "a record removed", "removed", [*lines[:9], *lines[10:]]
    yield "a record twice", "duplicated", [*lines[:9], lines[8], *lines[9:]]
    yield "cut with its end", "cut", lines[:-3]
    yield "cut before its end", "cut", [*lines[:-3], lines[-1]]
    yield "cut in the middle of a line", "cut", [*lines[:-1], lines[-1][:50]]
    yield "the beginning removed", "removed", [lines[0], *lines[5:]]
    yield "other filters claimed", "unsigned", changed(0, b'"filter": {}', b'"filter": {"x": 1}')
    yield "the end changed", "unsigned", changed(-1, b'"records": ', b'"records": 1')


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("index", range(9))
def test_refuses_an_export_that_was_changed(home: Path, index: int) -> None:
    out = exported(home)
    what, kind, lines = list(damaged(out.read_bytes().splitlines(keepends=True)))[index]
    out.write_bytes(b"".join(lines))
    report = verify(home, out)
    kinds = {p["kind"] for p in report["problems"]}
    assert kinds & {kind, "export"}, (what, kinds)


@pytest.mark.parametrize(
    "data", [b"", b"{}\n", b"[" * 5000, b"\0\n", b'{"capwasm-audit-export": 2}']
)
def test_refuses_what_is_no_export(home: Path, data: bytes) -> None:
    (home.parent / "out").write_bytes(data)
    done = run("verify", home.parent / "out")
    assert done.exit_code == 1
    assert "error [audit.export]" in done.output


@pytest.mark.case("LOG-10")
def test_refuses_to_export_a_damaged_log_and_leaves_no_file(home: Path) -> None:
    file = home / "audit" / "000002.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"mono"', b'"mona"', 1))
    out = home.parent / "out"
    for words in ([], ["--format", "csv"], ["--kind", "fs"]):
        done = run("export", "--home", home, "-o", out, *words)
        assert done.exit_code == 1
        assert "error [audit.tampered]" in done.output
        assert not out.exists()
    assert not list(home.parent.glob(".out*"))


@pytest.mark.case("LOG-07")
def test_refuses_to_let_a_cell_be_a_formula(home: Path) -> None:
    out = exported(home, "--format", "csv", "--kind", "fs")
    rows = list(csv.DictReader(io.StringIO(out.read_text(), newline="")))
    assert len(rows) == len(HOSTILE)
    for row in rows:
        for name in ("action", "target", "reason"):
            assert row[name].startswith("'") or row[name].startswith("\\"), row
        assert not any(c < " " for value in row.values() for c in value)
        assert json.loads(row["details"])
    assert "error" in run("verify", out).output


def test_allows_an_export_in_little_memory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    real = _read.lines_of

    def counted(*args: Any, **kwargs: Any) -> Iterator[tuple[int, bytes]]:
        for begin, line in real(*args, **kwargs):
            held.append(len(line))
            yield begin, line

    monkeypatch.setattr(export, "lines_of", counted)
    written: list[int] = []

    class Out(io.BytesIO):
        def write(self, data: Any) -> int:
            written.append(len(held))
            return len(data)

    export.export_jsonl(home / "audit", Query(), Out())
    # Each record is written before the next is read.
    assert written[1:-1] == list(range(1, len(held) + 1))


# -- prune -----------------------------------------------------------------------------------------


def test_allows_pruning_by_policy_or_by_hand_and_tells_first(home: Path) -> None:
    assert "nothing to prune" in run("prune", "--home", home).output
    (home / "policy.toml").write_text("schema = 1\n[audit]\nkeep-days = 1\n")
    assert "nothing to prune" in run("prune", "--home", home).output
    done = run("prune", "--home", home, "--max-megabytes", 1, "--json")
    assert json.loads(done.output) == {"dry_run": False, "pruned": None}


def test_allows_a_dry_run_beside_a_writer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from capwasm.cli import _audit_keep

    monkeypatch.setattr(_audit_keep, "MEGABYTE", 9_000)
    before = sorted((home / "audit").glob("*.jsonl"))
    with Home(home).open_audit(home / "audit"):
        told = run("prune", "--home", home, "--max-megabytes", 1, "--dry-run")
        assert told.exit_code == 0
        assert "would go: records 1 to" in told.output
        done = run("prune", "--home", home, "--max-megabytes", 1)
        assert "error [audit.busy]" in done.output
    assert sorted((home / "audit").glob("*.jsonl")) == before
    done = run("prune", "--home", home, "--max-megabytes", 1)
    assert "removed: records 1 to" in done.output
    assert len(sorted((home / "audit").glob("*.jsonl"))) < len(before)
    report = verify(home)
    assert report["ok"], report
    assert report["first"] == report["pruned_to"] + 1
    assert "pruned, told by the log itself" in run("verify", "--home", home).output


def test_refuses_wrong_usage(home: Path) -> None:
    out = exported(home)
    for words in (
        ["verify", out, "--commands"],
        ["tail", "--since", "soon"],
        ["export", "--until", "2026-99-99"],
        ["export", "--kind", "gossip"],
        ["prune", "--keep-days", "0"],
    ):
        assert run(*words, "--home", home).exit_code == 2, words
