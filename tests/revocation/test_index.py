"""What a feed means: each kind of entry, each with what it does not mean."""

from __future__ import annotations

import tracemalloc
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.caps import standard_capabilities
from capwasm.capsule.identity import id_matches
from capwasm.lattice import Clause
from capwasm.revocation.feed import parse
from capwasm.revocation.index import Index
from tests.revocation.desk import feed, subject

A, B = "a" * 64, "b" * 64
CAPS = standard_capabilities()


def index(**lists: Any) -> Index:
    return Index(parse(feed(**lists)), CAPS)


def denied(found: Index, *args: Any, **words: Any) -> str | None:
    entry = found.find(subject(*args, **words))
    return None if entry is None else str(entry)


def clause(capability: str, table: dict[str, Any]) -> Clause:
    known = next(c for c in CAPS if c.name == capability)
    parsed = known.parse([table], "manifest")
    assert not parsed.faults
    return parsed.clauses[0]


def test_a_digest_ends_whatever_holds_it() -> None:
    found = index(deny={"digests": {A: "malware"}})
    assert denied(found, digests=[A, B]) == f"digest {A}: malware"
    assert denied(found, "other.x", "9.9.9", digests=[A]) is not None
    assert denied(found, digests=[B]) is None


@pytest.mark.parametrize(
    ("text", "ended", "fine"),
    [
        ("<1.2.3", ["1.2.2", "0.0.1", "1.2.3-rc.1", "1.2.2+b"], ["1.2.3", "1.3.0", "1.3.0-a"]),
        (">=1.0,<1.2.3", ["1.0.0", "1.2.2", "1.0.0-rc.1"], ["0.9.9", "1.2.3", "0.9.9-a"]),
        ("=1.2.0", ["1.2.0", "1.2.0+build.7", "1.2.0-rc.1"], ["1.2.1", "1.1.9", "1.2.1-a"]),
        ("=1.2.0-rc.1", ["1.2.0-rc.1"], ["1.2.0", "1.2.0-rc.2"]),
        ("<=1.2.0", ["1.2.0", "1.2.0-x"], ["1.2.1", "1.2.1-x"]),
    ],
)
def test_a_range_ends_these_versions_and_no_others(
    text: str, ended: list[str], fine: list[str]
) -> None:
    found = index(deny={"versions": {"acme.weather": {text: "old"}}})
    assert [v for v in ended if denied(found, version=v) is None] == []
    assert [v for v in fine if denied(found, version=v) is not None] == []
    assert denied(found, "acme.weather.x", ended[0]) is None


def test_a_pattern_ends_ids_by_whole_labels() -> None:
    found = index(deny={"plugins": {"acme.*": "sold", "evil.x": ""}})
    assert denied(found, "acme.weather") == "plugin acme.*: sold"
    assert denied(found, "acme.a.b.c") is not None
    assert denied(found, "evil.x") == "plugin evil.x"
    assert [denied(found, i) for i in ("acmeevil.x", "x.acme", "evil.x.y", "evil.y")] == [None] * 4


LABEL = st.sampled_from(["a", "b", "ab"])
IDS = st.lists(LABEL, min_size=2, max_size=4).map(".".join)


@given(IDS, IDS.map(lambda i: i + ".*") | IDS | st.just("*"))
def test_patterns_mean_here_what_they_mean_elsewhere(plugin_id: str, pattern: str) -> None:
    found = index(deny={"plugins": {pattern: ""}})
    assert (denied(found, plugin_id) is not None) == id_matches(pattern, plugin_id)


def test_a_feed_can_end_everything() -> None:
    found = index(deny={"plugins": {"*": "stop"}})
    assert denied(found) == denied(found, "x.y", "0.0.1") == "plugin *: stop"


def test_a_signer_ends_what_he_signed_also_with_others() -> None:
    found = index(deny={"signers": {A: "stolen"}})
    assert denied(found, signers=[A, B]) == f"signer {A}: stolen"
    assert denied(found, signers=[B]) is None


def test_an_allow_list_leaves_only_what_is_on_it() -> None:
    found = index(allow={"plugins": ["acme.*"], "digests": [A]})
    assert denied(found, "acme.weather", digests=[B]) is None
    assert denied(found, "other.x", digests=[A]) is None
    assert denied(found, "other.x", digests=[B]) == "allow list does not hold it"
    assert denied(index(allow={}), "acme.weather") is not None
    assert denied(index(), "other.x", digests=[B]) is None


def test_a_denial_beats_the_allow_list() -> None:
    found = index(allow={"plugins": ["*"], "digests": [A]}, deny={"digests": {A: "bad"}})
    assert denied(found, digests=[A]) == f"digest {A}: bad"
    assert denied(found, digests=[B]) is None


def test_a_capability_is_ended_whole_or_where_it_meets_a_clause() -> None:
    mine = clause("net", {"allow": "https://api.x.example/v1/*"})
    other = clause("net", {"allow": "https://y.example/"})
    wide = clause("net", {"allow": "https://*.x.example/"})
    whole = index(deny={"capabilities": [{"capability": "net", "reason": "SSRF"}]})
    part = index(
        deny={
            "capabilities": [{"capability": "net", "clause": {"allow": "https://api.x.example/*"}}]
        }
    )
    of = index(deny={"capabilities": [{"capability": "net", "plugins": "acme.*"}]})

    assert str(whole.clause("a.b", "net", other)) == "capability net: SSRF"
    assert whole.clause("a.b", "fs", other) is None
    assert part.clause("a.b", "net", mine) is not None
    assert part.clause("a.b", "net", wide) is not None, "a wider grant holds what is denied"
    assert part.clause("a.b", "net", other) is None
    assert of.clause("acme.x", "net", other) is not None
    assert of.clause("b.x", "net", other) is None


def test_a_clause_that_this_runtime_cannot_read_ends_the_whole_capability() -> None:
    found = index(
        deny={"capabilities": [{"capability": "net", "clause": {"allow": "gopher://x", "new": 1}}]}
    )
    assert found.clause("a.b", "net", clause("net", {"allow": "https://y.example/"})) is not None
    assert found.clause("a.b", "log", clause("log", {})) is None


def test_a_hundred_thousand_entries_are_asked_in_no_time_and_take_bounded_memory() -> None:
    half = 50_000
    feed_of_many = parse(
        feed(
            deny={
                "digests": {f"{n:064x}": f"bad {n % 7}" for n in range(half)},
                "versions": {f"acme.p{n}": {f"<1.{n % 50}": "old"} for n in range(half)},
            }
        )
    )
    tracemalloc.start()
    try:
        found = Index(feed_of_many, CAPS)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    asked = [subject(f"acme.p{n}", "1.9.0", digests=[f"{n + half:064x}"]) for n in range(1000)]
    began = perf_counter()
    answers = [found.find(s) for s in asked]
    assert (perf_counter() - began) / len(asked) < 0.01, "ten times what is promised"
    assert None in answers
    assert any(answers)
