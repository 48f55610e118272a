"""Advisories: what a mirror knows is found in an SBOM, and what it does not know is said."""

from __future__ import annotations

import json
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from capwasm.caps import standard_capabilities
from capwasm.errors import ScanError
from capwasm.grants.scan import ScanRule
from capwasm.review.finding import Finding, Severity
from capwasm.scan import osv
from capwasm.scan.bill import read_bill
from capwasm.scan.mirror import INDEX, Archive, Index, open_mirror
from capwasm.scan.model import Context
from capwasm.scan.versions import Package, package_of

from .advisories import NOW, advisory, database, zipped
from .supply import bill, component, findings, part, report

pytest.importorskip("cvss", reason="the extra scan has it")

TODAY = datetime(2026, 11, 24, tzinfo=UTC)
HIGH = {"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}]}
CRITICAL = {
    "severity": [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}]
}  # fmt: skip
FLAW = advisory(
    "GHSA-aaaa-bbbb-cccc", "PyPI", "Some_Lib", {"introduced": "0"}, {"fixed": "2.0.1"}, **HIGH
)


def looked(
    place: Path | None, *parts: dict[str, Any], now: datetime = TODAY, **rule: Any
) -> Context:
    return Context(
        rule=ScanRule.model_validate(rule), now=now, mirror=place,
        capabilities=standard_capabilities(),
    )  # fmt: skip


def found_in(place: Path | None, *parts: dict[str, Any], **more: Any) -> dict[str, Finding]:
    return findings(osv.SCANNERS, component(sbom=bill(*parts)), looked(place, **more))


# -- found, and not -----------------------------------------------------------------------------


def test_a_part_with_a_known_flaw_is_found(tmp_path: Path) -> None:
    mirror = database(tmp_path, PyPI=[FLAW])

    found = found_in(mirror, part("pypi", "some.lib", "2.0.0"))

    assert set(found) == {"osv.affected"}
    one = found["osv.affected"]
    assert (one.severity, one.place) == (Severity.HIGH, "sbom.cdx.json:components[0]")
    assert "GHSA-aaaa-bbbb-cccc" in one.evidence
    assert "2.0.1" in one.fix


def test_what_is_fixed_is_not_found(tmp_path: Path) -> None:
    mirror = database(tmp_path, PyPI=[FLAW])

    assert found_in(mirror, part("pypi", "some-lib", "2.0.1"), part("pypi", "other", "1")) == {}


def test_a_malicious_package_is_found_whatever_its_version(tmp_path: Path) -> None:
    bad = advisory("MAL-2026-1", "npm", "left-pad-evil", {"introduced": "0"})
    mirror = database(tmp_path, npm=[bad])

    for version in ("1.0.0", "not a version", ""):
        found = found_in(mirror, part("npm", "left-pad-evil", version))
        assert found["osv.malware"].severity is Severity.CRITICAL


def test_records_that_are_names_of_one_flaw_are_one(tmp_path: Path) -> None:
    twin = advisory("PYSEC-2026-7", "PyPI", "some-lib", versions=["2.0.0"], aliases=["CVE-2026-1"])
    mirror = database(tmp_path, PyPI=[FLAW | {"aliases": ["CVE-2026-1"]}, twin])

    made = report(
        osv.SCANNERS, component(sbom=bill(part("pypi", "some-lib", "2.0.0"))), looked(mirror)
    )

    assert [f.rule for f in made.findings] == ["osv.affected"]
    assert made.findings[0].severity is Severity.HIGH  # the graver of both
    for name in ("GHSA-aaaa-bbbb-cccc", "PYSEC-2026-7", "CVE-2026-1"):
        assert name in made.findings[0].evidence


def test_what_was_withdrawn_does_not_count_and_what_will_be_does(tmp_path: Path) -> None:
    for when, counts in (("2026-01-01T00:00:00Z", False), ("2027-01-01T00:00:00Z", True)):
        mirror = database(tmp_path / str(counts), PyPI=[FLAW | {"withdrawn": when}])
        found = found_in(mirror, part("pypi", "some-lib", "1.0"))
        assert ("osv.affected" in found) is counts


RANGES = [
    # ecosystem, purl, version, events, affected
    ("PyPI", "pypi/p", "1.0rc1", [{"introduced": "0"}, {"fixed": "1.0"}], True),
    ("PyPI", "pypi/p", "1.0.post1", [{"introduced": "0"}, {"fixed": "1.0"}], False),
    ("PyPI", "pypi/p", "1!0.5", [{"introduced": "0"}, {"fixed": "9"}], False),
    ("npm", "npm/%40a/p", "1.10.0", [{"introduced": "1.9.0"}], True),
    ("npm", "npm/%40a/p", "1.9.0-rc.1", [{"introduced": "1.9.0"}], False),
    ("npm", "npm/%40a/p", "2.0.0", [{"introduced": "1.0.0"}, {"last_affected": "2.0.0"}], True),
    ("npm", "npm/%40a/p", "2.0.1", [{"introduced": "1.0.0"}, {"last_affected": "2.0.0"}], False),
    ("npm", "npm/%40a/p", "3.0.0",
     [{"introduced": "0"}, {"fixed": "1.0.0"}, {"introduced": "3.0.0"}, {"fixed": "3.0.1"}], True),
    ("npm", "npm/%40a/p", "2.0.0",
     [{"introduced": "3.0.0"}, {"fixed": "3.0.1"}, {"fixed": "1.0.0"}, {"introduced": "0"}], False),
    ("npm", "npm/%40a/p", "5.0.0", [{"introduced": "0"}, {"limit": "4.0.0"}], False),
    ("crates.io", "cargo/p", "0.2.0+build.9", [{"introduced": "0.2.0"}, {"fixed": "0.2.1"}], True),
    ("Go", "golang/example.com/p", "v1.8.1", [{"introduced": "0"}, {"fixed": "1.8.2"}], True),
    ("Go", "golang/example.com/p", "v0.0.0-20200101000000-abcdefabcdef",
     [{"introduced": "0"}, {"fixed": "0.0.0-20210101000000-abcdefabcdef"}], True),
    ("Go", "golang/stdlib", "1.22", [{"introduced": "1.22.0-0"}, {"fixed": "1.22.3"}], True),
]  # fmt: skip


@pytest.mark.parametrize(("ecosystem", "purl", "version", "events", "affected"), RANGES)
def test_ranges_are_evaluated_as_the_schema_says(
    tmp_path: Path, ecosystem: str, purl: str, version: str, events: list, affected: bool
) -> None:
    kind, _, name = purl.partition("/")
    package = name.replace("%40", "@")
    record = advisory("OSV-2026-1", ecosystem, package, *events)
    mirror = database(tmp_path, **{ecosystem.replace(".", "_"): [record]})

    found = found_in(mirror, part(kind, name, version))

    assert set(found) == ({"osv.affected"} if affected else set())


def test_a_version_that_is_listed_is_affected_in_any_ecosystem(tmp_path: Path) -> None:
    record = advisory(
        "GHSA-m", "Maven", "org.acme:lib", {"introduced": "0"}, {"fixed": "2"},
        kind="ECOSYSTEM", versions=["1.0.RELEASE"],
    )  # fmt: skip
    mirror = database(tmp_path, Maven=[record])

    assert "osv.affected" in found_in(mirror, part("maven", "org.acme/lib", "1.0.RELEASE"))
    assert found_in(mirror, part("maven", "org.acme/lib", "1.1.RELEASE")) == {}


@pytest.mark.parametrize(
    ("ecosystem", "package", "purl"),
    [
        ("npm", "JSONStream", "npm/JSONStream"), ("Go", "github.com/Masterminds/x", "golang/github.com/Masterminds/x"),
        ("PyPI", "Zope.Interface", "pypi/zope_interface"), ("crates.io", "serde-json", "cargo/serde_json"),
        ("Maven", "Org.Acme:Lib", "maven/org.acme/lib"), ("NuGet", "Newtonsoft.Json", "nuget/newtonsoft.json"),
        ("Debian:12", "openssl", "deb/debian/openssl"),
    ],
)  # fmt: skip
def test_names_are_found_however_they_are_spelt(
    tmp_path: Path, ecosystem: str, package: str, purl: str
) -> None:
    mirror = database(tmp_path, zips=[advisory("OSV-1", ecosystem, package, {"introduced": "0"})])
    kind, _, name = purl.partition("/")

    assert "osv.affected" in found_in(mirror, part(kind, name, "1.0.0"))


def test_a_kind_of_package_that_no_database_knows_is_said(tmp_path: Path) -> None:
    mirror = database(tmp_path, PyPI=[FLAW])

    found = found_in(mirror, part("huggingface", "acme/model", "1"), part("generic", "own", "1"))

    assert found["osv.uncovered"].evidence == "pkg:huggingface"


def test_what_cannot_be_decided_is_said(tmp_path: Path) -> None:
    order = advisory(
        "GHSA-m", "Maven", "org.acme:lib", {"introduced": "1"}, {"fixed": "2"}, kind="ECOSYSTEM"
    )
    mirror = database(tmp_path, Maven=[order], PyPI=[FLAW])

    for unclear in (
        part("maven", "org.acme/lib", "1.5"), part("pypi", "some-lib"),
        part("pypi", "some-lib", "a week ago"), part("pypi", "some-lib", "1" * 300),
    ):  # fmt: skip
        found = found_in(mirror, unclear)
        assert set(found) == {"osv.undecided"}, unclear
        assert found["osv.undecided"].severity is Severity.MEDIUM


def test_a_version_that_is_none_is_not_taken_for_one_that_is_not_listed(tmp_path: Path) -> None:
    record = advisory(
        "GHSA-l", "PyPI", "lib", {"introduced": "1"}, {"fixed": "2"}, versions=["1.5"]
    )
    mirror = database(tmp_path, PyPI=[record])

    assert set(found_in(mirror, part("pypi", "lib", "one point five"))) == {"osv.undecided"}
    assert set(found_in(mirror, part("pypi", "lib", "1.5.0"))) == {"osv.affected"}
    assert found_in(mirror, part("pypi", "lib", "2.0")) == {}


def test_an_advisory_with_several_entries_of_one_package_is_one_finding(tmp_path: Path) -> None:
    """As real ones are: two ranges, and a list for what lies between."""
    record = advisory("GHSA-s", "npm", "lib", {"introduced": "1.0.0"}, {"fixed": "1.4.0"})
    more = advisory("x", "npm", "lib", {"introduced": "2.0.0"}, {"fixed": "2.4.0"})["affected"]
    listed = {"package": {"ecosystem": "npm", "name": "lib"}, "versions": ["1.9.0"]}
    record["affected"] += [*more, listed]
    mirror = database(tmp_path, npm=[record])

    for version, affected in (("1.1.0", True), ("2.1.0", True), ("1.9.0", True), ("1.5.0", False)):
        made = report(
            osv.SCANNERS, component(sbom=bill(part("npm", "lib", version))), looked(mirror)
        )
        assert [f.rule for f in made.findings] == ["osv.affected"] * affected, version


COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("version", "rule"),
    [(COMMIT, "osv.affected"), ("v1.2.0", "osv.affected"), ("1.2.0", "osv.affected"),
     (OTHER, None), ("c" * 40, "osv.undecided"), ("v1.3.0", None)],
)  # fmt: skip
def test_commits_are_compared_where_they_can_be(
    tmp_path: Path, version: str, rule: str | None
) -> None:
    record = advisory("OSV-2026-9", "OSS-Fuzz", "lib", versions=["v1.2.0"])
    record["affected"][0] |= {
        "ranges": [{
            "type": "GIT", "repo": "https://github.com/Acme/lib.git",
            "events": [{"introduced": COMMIT}, {"fixed": OTHER}],
        }]
    }  # fmt: skip
    mirror = database(tmp_path, OSS_Fuzz=[record])

    found = found_in(mirror, part("github", "acme/lib", version))

    assert set(found) == ({rule} if rule else set())


def test_a_repository_in_a_qualifier_is_looked_up(tmp_path: Path) -> None:
    purl = f"pkg:generic/lib?vcs_url=git%2Bhttps://github.com/acme/lib.git%40{COMMIT}"
    made = read_bill(memoryview(bill({"type": "library", "name": "lib", "purl": purl})))

    assert package_of(made.components[0]) == Package("GIT", "github.com/acme/lib")
    assert made.components[0].commit == COMMIT


@pytest.mark.parametrize(
    ("more", "severity"),
    [
        (CRITICAL, Severity.CRITICAL),
        (HIGH, Severity.HIGH),
        ({"severity": [{"type": "CVSS_V2", "score": "AV:L/AC:H/Au:N/C:N/I:N/A:P"}]}, Severity.LOW),
        ({"database_specific": {"severity": "MODERATE"}}, Severity.MEDIUM),
        ({"database_specific": {"severity": "HIGH"}}, Severity.HIGH),
        ({"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/nonsense"}]}, Severity.MEDIUM),
        ({"severity": [{"type": "CVSS_V3", "score": "A" * 10_000}]}, Severity.MEDIUM),
        ({"severity": [{"type": "Ubuntu", "score": "low"}]}, Severity.LOW),
        ({"severity": "x", "database_specific": 5}, Severity.MEDIUM),
        ({}, Severity.MEDIUM),
    ],
)
def test_how_grave_it_is_comes_from_vectors_and_words(
    tmp_path: Path, more: dict[str, Any], severity: Severity
) -> None:
    record = advisory("GHSA-x", "PyPI", "lib", {"introduced": "0"}, **more)
    mirror = database(tmp_path, PyPI=[record])

    found = found_in(mirror, part("pypi", "lib", "1"))

    assert found["osv.affected"].severity is severity


# -- the mirror itself --------------------------------------------------------------------------


def test_no_mirror_and_no_sbom_are_said_in_words(tmp_path: Path) -> None:
    none = report(osv.SCANNERS, component(sbom=bill()), looked(None))
    bare = report(osv.SCANNERS, component(), looked(tmp_path))

    assert "names no mirror" in none.scanners[0].skipped
    assert "no SBOM" in bare.scanners[0].skipped


def test_a_mirror_that_is_gone_or_broken_is_a_grave_finding(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/all.zip").write_bytes(zipped([FLAW])[:-40])
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / INDEX).write_bytes(b"SQLite format 3\0 and then nothing of it")

    for place in ("missing", "broken", "index"):
        found = found_in(tmp_path / place, part("pypi", "lib", "1"))
        assert found["osv.mirror"].severity is Severity.HIGH, place


def test_a_stale_mirror_is_said(tmp_path: Path) -> None:
    mirror = database(tmp_path, PyPI=[FLAW])
    for days, stale in ((2, True), (30, False)):
        found = found_in(mirror, part("pypi", "lib", "1"), **{"osv-days": days})
        assert ("osv.stale" in found) is stale
    found = found_in(mirror, part("pypi", "lib", "1"), now=TODAY + timedelta(days=365))
    assert NOW[:10] in found["osv.stale"].evidence


def test_an_ecosystem_that_is_not_held_is_said(tmp_path: Path) -> None:
    """Also if the zip of another ecosystem has a record that is about this one too."""
    both = FLAW | {"affected": [*FLAW["affected"], *advisory("x", "npm", "n")["affected"]]}
    mirror = database(tmp_path, PyPI=[FLAW | {"id": "GHSA-2"}, both])

    found = found_in(mirror, part("npm", "other", "1.0.0"), part("pypi", "fine", "1"))

    assert found["osv.uncovered"].evidence == "npm"


def test_the_zip_of_everything_holds_everything(tmp_path: Path) -> None:
    whole = tmp_path / "all.zip"
    whole.write_bytes(zipped([FLAW, advisory("GHSA-n", "npm", "n", {"introduced": "0"})]))

    assert found_in(whole, part("npm", "other", "1.0.0"), part("pypi", "fine", "1")) == {}
    assert "osv.affected" in found_in(whole, part("npm", "n", "1.0.0"))


def test_records_that_cannot_be_read_are_counted_and_said(tmp_path: Path) -> None:
    odd = [b"{", b"[]", b'{"id": "../../etc"}', b"[" * 100_000, json.dumps({"id": "A-1"}).encode()]
    mirror = database(tmp_path, PyPI=[FLAW, *odd])

    found = found_in(mirror, part("pypi", "some-lib", "1"))

    assert found["osv.mirror"].evidence.startswith("5 records")
    assert "osv.affected" in found


@pytest.mark.case("FS-27")
def test_a_zip_bomb_is_refused_in_bounded_time(tmp_path: Path) -> None:
    big = tmp_path / "big.zip"
    with zipfile.ZipFile(big, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.json", b"0" * (64 * 2**20))
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(20):
            packed.writestr(f"{number}.json", b"0" * (7 * 2**20))

    for path in (big, many):
        with pytest.raises(ScanError, match="unpacks to more"):
            list(Archive(path).rows())


@pytest.mark.case("FS-27")
def test_names_within_a_zip_are_never_paths(tmp_path: Path) -> None:
    path = tmp_path / "in" / "all.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as packed:
        for name in ("../../escaped.json", "/abs.json", "C:\\x.json"):
            packed.writestr(name, json.dumps(FLAW))

    assert found_in(path, part("pypi", "some-lib", "1"))
    assert {p.name for p in tmp_path.rglob("*")} == {"in", "all.zip"}


@pytest.mark.case("FS-27")
def test_links_in_a_mirror_are_not_followed(tmp_path: Path) -> None:
    mirror = database(tmp_path / "real", PyPI=[FLAW])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/PyPI").symlink_to(mirror / "PyPI")
    (tmp_path / "linked/loop").symlink_to(tmp_path / "linked")

    assert "osv.uncovered" in found_in(tmp_path / "linked", part("pypi", "some-lib", "1"))


# -- the index ----------------------------------------------------------------------------------


def test_an_index_answers_as_its_zips_do(tmp_path: Path) -> None:
    mirror = database(
        tmp_path / "zips", PyPI=[FLAW], npm=[advisory("MAL-1", "npm", "x", {"introduced": "0"})]
    )
    index = Index(tmp_path / INDEX)

    assert index.fill([mirror]) == 2
    parts = (part("pypi", "some-lib", "1"), part("npm", "x", "1.0.0"), part("cargo", "y", "1.0.0"))
    assert found_in(tmp_path, *parts) == found_in(mirror, *parts)


def test_an_index_is_made_anew_or_stays_as_it_was(tmp_path: Path) -> None:
    first = database(tmp_path / "first", PyPI=[FLAW])
    second = database(
        tmp_path / "second", npm=[advisory("GHSA-n", "npm", "n", {"introduced": "0"})]
    )
    (tmp_path / "empty").mkdir()
    index = Index(tmp_path / INDEX)
    index.fill([first])

    with pytest.raises(ScanError, match="no record"):
        Index(tmp_path / INDEX).fill([second, tmp_path / "empty"])
    assert "osv.affected" in found_in(tmp_path, part("pypi", "some-lib", "1"))

    Index(tmp_path / INDEX).fill([second])
    assert "osv.uncovered" in found_in(tmp_path, part("pypi", "some-lib", "1"))


def test_a_large_mirror_answers_soon(tmp_path: Path) -> None:
    """18,000 records: the index in milliseconds, the zip itself in about a second."""
    records = [
        advisory(
            f"GHSA-{n}", "PyPI", f"lib-{n % 9000}", {"introduced": "0"}, {"fixed": "2.0"}, **HIGH
        )
        | {"details": "x" * 1500}
        for n in range(18_000)
    ]
    zips = database(tmp_path / "zips", PyPI=records)
    Index(tmp_path / INDEX).fill([zips])
    wanted = [Package("PyPI", f"lib-{n}") for n in range(300)]
    took = {}
    for place in (zips, tmp_path):
        began = time.perf_counter()
        found = open_mirror(place).find(wanted)
        took[place] = time.perf_counter() - began
        assert sum(map(len, found.values())) == 600

    assert took[tmp_path] < 5
