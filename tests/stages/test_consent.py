"""Consents: for exactly these bytes, kept whole or not at all, and never more than was said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.errors import AuditError, ConsentError
from capwasm.grants.consent import (
    Consent,
    ConsentEntry,
    ConsentRecord,
    Subject,
    Withdrawal,
    carries_over,
    compare,
    consent_for,
)
from capwasm.grants.consent_store import ConsentStore
from capwasm.grants.manifest import Manifest, parse_manifest
from tests.helpers import ListRecorder
from tests.toycaps import TOYS, manifest_text

CODE, OTHER = "a" * 64, "b" * 64
NOW = datetime(2027, 1, 31, 12, 0, tzinfo=UTC)
DOOR = '[[door]]\ndoor = "front"\nacts = ["look", "enter"]\ntimes = 5\n'


def manifest(body: str = DOOR, version: str = "1.2.0") -> Manifest:
    return parse_manifest(manifest_text(body, version=version), TOYS)


def record(of: Manifest | None = None, code: str = CODE, **words: Any) -> ConsentRecord:
    of = of or manifest()
    return ConsentRecord.of(
        Subject.of(of, code),
        {name: request.clauses for name, request in of.requests.items()},
        of.limits,
        **{"who": "ann", "when": NOW, **words},
    )


def code_of(function: Any, *args: Any, **words: Any) -> str:
    with pytest.raises(ConsentError) as caught:
        function(*args, **words)
    return caught.value.code


@pytest.fixture
def store(tmp_path: Path) -> ConsentStore:
    return ConsentStore(tmp_path / "consents")


# --- for exactly these bytes -------------------------------------------------------------------


def test_allows_what_was_kept_to_be_found(store: ConsentStore) -> None:
    kept = store.give(record(reason="needed"))

    found = store.find(Subject.of(manifest(), CODE))
    assert found.entry == kept
    assert found.entry.record.reason == "needed"
    assert found.others == ()


def test_refuses_to_find_what_was_never_given(store: ConsentStore) -> None:
    assert store.find(Subject.of(manifest(), CODE)).entry is None
    assert store.entries() == []


@pytest.mark.case("MAN-10")
@pytest.mark.parametrize("other", ["code", "manifest", "version", "plugin"])
def test_refuses_a_consent_for_other_bytes(store: ConsentStore, other: str) -> None:
    store.give(record())
    subject = {
        "code": Subject.of(manifest(), OTHER),
        "manifest": Subject.of(manifest(DOOR + "[bell]\ntunes = ['a']"), CODE),
        "version": Subject.of(manifest(version="1.3.0"), CODE),
        "plugin": Subject("acme.weather2", "1.2.0", CODE, manifest().digest),
    }[other]

    found = store.find(subject)
    assert found.entry is None
    assert len(found.others) == (0 if other == "plugin" else 1)


def test_the_newest_consent_decides(store: ConsentStore) -> None:
    store.give(record(who="ann"))
    store.give(record(who="bob", when=datetime(1999, 1, 1, tzinfo=UTC)))

    entry = store.find(Subject.of(manifest(), CODE)).entry
    assert entry is not None
    assert entry.record.who == "bob"


@pytest.mark.case("PER-09")
def test_the_order_is_the_stores_not_the_clocks(store: ConsentStore) -> None:
    first = store.give(record(when=datetime(2099, 1, 1, tzinfo=UTC)))
    second = store.give(record(when=datetime(2001, 1, 1, tzinfo=UTC)))

    assert second.number > first.number


def test_refuses_a_consent_that_was_withdrawn(store: ConsentStore) -> None:
    store.give(record())
    store.withdraw("acme.weather", Withdrawal(who="bob", when="2027-02-01T00:00:00Z"))

    found = store.find(Subject.of(manifest(), CODE))
    assert found.entry is None
    assert found.withdrawn is not None
    assert found.withdrawn.record.withdrawn == Withdrawal(who="bob", when="2027-02-01T00:00:00Z")


def test_refuses_an_older_consent_to_come_back_to_life() -> None:
    gone = record().model_copy(
        update={"withdrawn": Withdrawal(who="bob", when="2027-02-01T00:00:00Z")}
    )
    entries = [ConsentEntry(1, record()), ConsentEntry(2, gone)]

    assert consent_for(Subject.of(manifest(), CODE), entries).entry is None
    assert consent_for(Subject.of(manifest(), CODE), entries[:1]).entry == entries[0]


def test_allows_a_new_consent_after_a_withdrawal(store: ConsentStore) -> None:
    store.give(record())
    store.withdraw("acme.weather", Withdrawal(who="bob", when="2027-02-01T00:00:00Z"))
    again = store.give(record(who="cy"))

    assert store.find(Subject.of(manifest(), CODE)).entry == again


def test_withdraws_one_version_and_leaves_the_other(store: ConsentStore) -> None:
    newer = manifest(version="1.3.0")
    store.give(record())
    store.give(record(newer))
    withdrawal = Withdrawal(who="bob", when="2027-02-01T00:00:00Z")

    assert len(store.withdraw("acme.weather", withdrawal, version="1.2.0")) == 1
    assert store.find(Subject.of(manifest(), CODE)).entry is None
    assert store.find(Subject.of(newer, CODE)).entry is not None
    assert code_of(store.withdraw, "acme.weather", withdrawal, version="1.2.0") == "consent.missing"


def test_refuses_a_consent_made_by_anyone_else() -> None:
    with pytest.raises(TypeError):
        Consent(Subject.of(manifest(), CODE), None, None, ())


# --- the record --------------------------------------------------------------------------------


def test_a_record_keeps_the_clauses_and_the_limits() -> None:
    kept = record(manifest(DOOR + "[bell]\ntunes = ['b', 'a']\n[limits]\nfuel = 9\n"))
    again = ConsentRecord.parse(json.loads(kept.model_dump_json(by_alias=True, exclude_none=True)))

    assert again == kept
    assert again.bounds().fuel == 9
    assert {n: set(c) for n, c in again.clauses(TOYS).items()} == {
        n: set(r.clauses) for n, r in manifest(DOOR + "[bell]\ntunes = ['b', 'a']").requests.items()
    }


@pytest.mark.parametrize(
    ("word", "value"),
    [("who", ""), ("who", "x" * 201), ("who", "a\u202eb"), ("who", "a\nb"), ("reason", "\x1b[2J"),
     ("reason", "x" * 501)],
)  # fmt: skip
@pytest.mark.case("MAN-06", "LOG-07")
def test_refuses_a_record_by_nobody_or_with_hidden_text(word: str, value: str) -> None:
    assert code_of(record, **{word: value}) == "consent.invalid"


GOOD = json.loads(record().model_dump_json(by_alias=True, exclude_none=True))
BAD_RECORDS: dict[str, Any] = {
    "not JSON": b"{",
    "empty": b"",
    "cut off": json.dumps(GOOD).encode()[:-20],
    "not UTF-8": b'{"schema": "\xff"}',
    "a list": [],
    "a number": 3,
    "nothing in it": {},
    "another schema": {**GOOD, "schema": 2},
    "a schema that is true": {**GOOD, "schema": True},
    "an unknown word": {**GOOD, "also": 1},
    "another plugin": {**GOOD, "plugin": "acme.other"},
    "no plugin id": {**GOOD, "plugin": "../../etc"},
    "a short digest": {**GOOD, "code-digest": "abc"},
    "permissions in no table": {**GOOD, "permissions": {"door": [1]}},
    "no time": {**GOOD, "when": "yesterday"},
    "a day that is none": {**GOOD, "when": "2027-02-30T00:00:00Z"},
    "a limit that is text": {**GOOD, "limits": {"fuel": "9"}},
    "a number past 64 bits": {**GOOD, "limits": {"fuel": 2**70}},
    "NaN": json.dumps(GOOD).replace('"times": 5', '"times": NaN').encode(),
    "one key twice": json.dumps(GOOD).replace('"who"', '"who": "eve", "who"').encode(),
    "too deep": {**GOOD, "permissions": {"door": [{"a": json.loads("[" * 30 + "]" * 30)}]}},
    "too large": b" " * 600_000,
    "deep without end": b'{"a":' * 100_000,
}


@pytest.mark.case("MAN-03", "MAN-04", "MAN-05", "MAN-08", "PER-03")
@pytest.mark.parametrize("name", BAD_RECORDS)
def test_refuses_a_malformed_record(store: ConsentStore, name: str) -> None:
    store.give(record())
    path = store.directory / "acme.weather@000001.json"
    value = BAD_RECORDS[name]
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())

    assert code_of(store.find, Subject.of(manifest(), CODE)) == "consent.invalid"
    assert code_of(store.entries) == "consent.invalid"
    # A fault in one plugin's record is not another's.
    assert store.find(Subject("acme.other", "1.0.0", CODE, CODE)).entry is None


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({"permissions": {"siren": []}}, "permissions.siren"),
        ({"permissions": {"door": [{"door": "A"}]}}, "permissions.door[0].door"),
        ({"permissions": {"door": [{"knob": 1}]}}, "permissions.door[0]"),
    ],
)
def test_refuses_permissions_that_no_capability_knows(words: dict[str, Any], path: str) -> None:
    with pytest.raises(ConsentError) as caught:
        ConsentRecord.parse({**GOOD, **words}).clauses(TOYS)
    assert caught.value.faults[0].path == path


def test_refuses_limits_that_there_are_not() -> None:
    bad = ConsentRecord.parse({**GOOD, "limits": {"coffee": 1, "fuel": 0}})

    with pytest.raises(ConsentError) as caught:
        bad.bounds()
    assert sorted(f.path for f in caught.value.faults) == ["limits.coffee", "limits.fuel"]


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_in_a_record_are_a_consent_error(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o700)
        path = Path(directory) / "acme.weather@000001.json"
        path.write_bytes(data)
        path.chmod(0o600)
        code_of(ConsentStore(directory).entries)


# --- the store ---------------------------------------------------------------------------------


def test_only_the_owner_can_read_what_is_kept(store: ConsentStore) -> None:
    store.give(record())

    assert store.directory.stat().st_mode & 0o777 == 0o700
    (path,) = store.directory.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.name == "acme.weather@000001.json"


def test_refuses_a_directory_or_a_record_that_others_may_write(store: ConsentStore) -> None:
    store.give(record())
    (path,) = store.directory.iterdir()
    path.chmod(0o622)
    assert code_of(store.entries) == "consent.store"

    path.chmod(0o600)
    store.directory.chmod(0o777)
    assert code_of(store.entries) == "consent.store"
    assert code_of(store.give, record()) == "consent.store"


def test_refuses_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert code_of(ConsentStore(tmp_path / "file").entries) == "consent.store"
    assert code_of(ConsentStore(tmp_path / "file" / "x").give, record()) == "consent.store"


def test_refuses_a_record_that_is_a_link_or_special(store: ConsentStore, tmp_path: Path) -> None:
    store.give(record())
    target = store.directory / "acme.weather@000001.json"
    target.rename(tmp_path / "elsewhere.json")
    target.symlink_to(tmp_path / "elsewhere.json")
    assert code_of(store.entries) == "consent.store"

    target.unlink()
    os.mkfifo(target, 0o600)
    assert code_of(store.entries) == "consent.store"


def test_refuses_a_file_whose_name_is_not_a_records(store: ConsentStore) -> None:
    store.give(record())
    (store.directory / "acme.weather.json").write_text("{}")

    assert code_of(store.entries) == "consent.store"


@pytest.mark.case("MAN-09")
@pytest.mark.parametrize("plugin", ["../x", "acme/../x", "CON", "acme.con", ""])
def test_refuses_an_id_that_would_leave_the_directory(store: ConsentStore, plugin: str) -> None:
    with pytest.raises(ValueError, match="not a plugin id"):
        store.find(Subject(plugin, "1.0.0", CODE, CODE))


def test_each_consent_is_told_before_it_counts(tmp_path: Path) -> None:
    recorder = ListRecorder()
    store = ConsentStore(tmp_path / "c", recorder=recorder)
    store.give(record(reason="needed"))
    store.withdraw("acme.weather", Withdrawal(who="bob", when="2027-02-01T00:00:00Z"))

    assert [(e.kind, e.action, e.plugin) for e in recorder.events] == [
        ("consent", "give", "acme.weather@1.2.0"),
        ("consent", "withdraw", "acme.weather@1.2.0"),
    ]
    assert recorder.events[0].details["who"] == "ann"
    assert recorder.events[1].details["who"] == "bob"


class FullDisk:
    def record(self, event: Any) -> None:
        raise AuditError("no space")


@pytest.mark.case("LOG-09")
def test_refuses_a_consent_that_can_not_be_told(tmp_path: Path) -> None:
    store = ConsentStore(tmp_path / "c", recorder=FullDisk())

    with pytest.raises(AuditError):
        store.give(record())
    assert store.entries() == []


@pytest.mark.case("PER-06")
def test_two_givers_never_take_one_number(store: ConsentStore) -> None:
    failures: list[BaseException] = []

    def give() -> None:
        try:
            for _ in range(5):
                store.give(record())
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=give) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert [e.number for e in store.entries()] == list(range(1, 21))


@pytest.mark.case("PER-01", "PER-07")
def test_a_killed_giver_leaves_whole_records_only(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    program = (
        "import sys\n"
        "from tests.stages.test_consent import ConsentStore, record\n"
        "store = ConsentStore(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "while True: store.give(record())\n"
    )
    for delay in (0.0, 0.01, 0.03, 0.07):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        numbers = [e.number for e in ConsentStore(directory).entries()]
        assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


@pytest.mark.case("PER-01")
def test_what_a_killed_giver_left_is_swept_once_it_is_old(store: ConsentStore) -> None:
    store.give(record())
    old, new = store.directory / ".x.1.tmp", store.directory / ".x.2.tmp"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))

    assert len(store.entries()) == 1
    assert not old.exists()
    assert new.exists()


@pytest.mark.case("PER-02")
def test_refuses_when_the_disk_is_full(
    store: ConsentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.give(record())

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert code_of(store.give, record()) == "consent.store"
    monkeypatch.undo()
    assert len(store.entries()) == 1
    assert len(list(store.directory.iterdir())) == 1


# --- what a new version adds ---------------------------------------------------------------------


@pytest.mark.case("MAN-10")
@pytest.mark.parametrize(
    ("body", "added", "raised"),
    [
        (DOOR, [], []),
        ("", [], []),
        ('[[door]]\ndoor = "front"\nacts = ["look"]\ntimes = 5\n', [], []),
        ('[[door]]\ndoor = "front"\nacts = ["look", "enter"]\ntimes = 2\n', [], []),
        (DOOR + "[limits]\nfuel = 10\n", [], []),
        ('[[door]]\ndoor = "front"\nacts = ["look", "enter"]\ntimes = 6\n', ["medium"], []),
        ('[[door]]\ndoor = "back"\nacts = ["look"]\n', ["low"], []),
        ('[[door]]\nacts = ["look"]\n', ["low"], []),
        (DOOR + '[[door]]\ndoor = "front"\nacts = ["paint"]\n', ["high"], []),
        (DOOR + "[bell]\ntunes = ['a']\n", ["low"], []),
        (DOOR + "[limits]\nfuel = 9_000_000_000\n", [], ["fuel"]),
    ],
)
def test_a_new_version_is_compared_with_what_was_consented_to(
    body: str, added: list[str], raised: list[str]
) -> None:
    newer = manifest(body, "1.3.0")
    widening = compare(record(), newer, TOYS)

    assert [a.risk.value for a in widening.added] == added
    assert list(widening.raised) == raised
    assert carries_over(record(), newer, TOYS) == (not added and not raised)


def test_refuses_to_carry_over_anothers_or_a_withdrawn_consent() -> None:
    gone = record().model_copy(
        update={"withdrawn": Withdrawal(who="bob", when="2027-02-01T00:00:00Z")}
    )
    other = record().model_copy(update={"plugin": "acme.other"})

    assert carries_over(record(), manifest(), TOYS)
    assert not carries_over(gone, manifest(), TOYS)
    assert not carries_over(other, manifest(), TOYS)


@pytest.mark.case("MAN-10", "PER-01")
def test_refuses_a_record_that_could_not_be_read_again(tmp_path: Path) -> None:
    store, recorder = ConsentStore(tmp_path / "c"), ListRecorder()
    told = ConsentStore(tmp_path / "c", recorder=recorder)
    store.give(record())
    huge = record().model_copy(
        update={"permissions": {"door": tuple({"door": "é" * 2000} for _ in range(50))}}
    )

    assert code_of(told.give, huge) == "consent.invalid"
    assert recorder.events == []
    assert [e.number for e in store.entries()] == [1]


def test_allows_the_largest_record_to_be_withdrawn(tmp_path: Path) -> None:
    store = ConsentStore(tmp_path / "c")
    for size in (505_000, 506_500, 508_000):
        with contextlib.suppress(ConsentError):
            store.give(
                record().model_copy(update={"permissions": {"door": ({"door": "x" * size},)}})
            )
    assert 1 <= len(store.entries()) < 3
    words = Withdrawal(who="\U0001f642" * 200, when="2027-02-01T00:00:00Z", reason="é" * 500)
    assert store.withdraw("acme.weather", words)
    assert all(e.record.withdrawn for e in store.entries())
