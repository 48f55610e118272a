"""The trust store: one fault anywhere and nobody is trusted; one place counts the keys."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.capsule.identity import id_matches
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.trust import Requirement, Role, TrustedKey, TrustStore
from capwasm.capsule.trusted import person
from capwasm.errors import CapwasmError, PolicyError, VerificationError
from tests.capsules import trusted

A, B, C = (PrivateKey.generate() for _ in range(3))
NOW = datetime(2027, 6, 1, tzinfo=UTC)
WHOLE = f"""
schema = 1

[[key]]
name = "Acme release"
public = "{A.public.base64()}"
roles = ["publisher"]
ids = ["acme.*", "beta.tool"]
not-before = "2027-01-01T00:00:00Z"
not-after = "2028-01-01T00:00:00+02:00"

[[key]]
name = "market"
public = '''
{B.public.pem().decode()}'''
roles = ["marketplace", "official"]
ids = ["*"]
revoked = true

[[role]]
name = "marketplace"
threshold = 1
"""


def store_of(tmp_path: Path, text: str | bytes) -> TrustStore:
    path = tmp_path / "trust.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return TrustStore.load(path)


def refused(tmp_path: Path, text: str | bytes) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        store_of(tmp_path, text)
    return caught.value


def test_allows_all_the_words_of_a_store(tmp_path: Path) -> None:
    store = store_of(tmp_path, WHOLE)

    first, second = store.keys
    assert (first.name, first.key, first.roles) == (
        "Acme release",
        A.public,
        frozenset({"publisher"}),
    )
    assert first.ids == ("acme.*", "beta.tool")
    assert first.not_before == datetime(2027, 1, 1, tzinfo=UTC)
    assert first.not_after == datetime(2027, 12, 31, 22, tzinfo=UTC)
    assert (second.key, second.revoked) == (B.public, True)
    assert store.thresholds == {"marketplace": 1}
    assert store.find(A.public.key_id) is first
    assert store.find(C.public.key_id) is None


def test_allows_a_directory_of_stores(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(WHOLE)
    (tmp_path / "b.toml").write_text(
        f'schema = 1\n[[key]]\nname = "c"\npublic = "{C.public.base64()}"\nroles = ["reviewer"]\nids = ["*"]\n'
    )
    (tmp_path / "notes.txt").write_text("not read")
    (tmp_path / ".hidden.toml").write_text("not read")

    assert [k.name for k in TrustStore.load(tmp_path).keys] == ["Acme release", "market", "c"]


def test_refuses_a_directory_where_one_file_has_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(WHOLE)
    (tmp_path / "b.toml").write_text("schema = 1\nx = 1")
    with pytest.raises(PolicyError, match=r"b\.toml"):
        TrustStore.load(tmp_path)

    (tmp_path / "b.toml").write_text('schema = 1\n[[role]]\nname = "marketplace"\nthreshold = 1')
    with pytest.raises(PolicyError, match="second rule"):
        TrustStore.load(tmp_path)

    (tmp_path / "b.toml").write_text(WHOLE.replace("[[role]]", "[[role]] #").split("[[role]]")[0])
    with pytest.raises(PolicyError, match="the same key as"):
        TrustStore.load(tmp_path)


@pytest.mark.case("MAN-08")
def test_refuses_a_store_with_many_faults_and_lists_all(tmp_path: Path) -> None:
    text = (
        WHOLE.replace("Acme release", "Acme\\u001b[2J")
        .replace('"publisher"', '"root", "publisher"')
        .replace('"acme.*"', '"acme*", "*.acme", "Acme.x", "acme."')
        .replace("2027-01-01T00:00:00Z", "2027-01-01")
        .replace("revoked = true", 'revoked = "no"\nexpires = 1')
        .replace("threshold = 1", "threshold = 0")
    )

    error = refused(tmp_path, text)

    assert error.code == "trust.invalid"
    assert {f.path for f in error.faults} == {
        "key[0].name", "key[0].roles[0]", "key[0].ids[0]", "key[0].ids[1]", "key[0].ids[2]",
        "key[0].ids[3]", "key[0].not-before", "key[1].revoked", "key[1]", "role[0].threshold",
    }  # fmt: skip
    assert "valid: ids, name, not-after" in str(error)


FAULTS = {
    "no schema": (WHOLE.replace("schema = 1", ""), "trust.invalid", "schema"),
    "schema of the future": (WHOLE.replace("schema = 1", "schema = 99"), "trust.schema", "up to 1"),
    "true for a schema": (WHOLE.replace("schema = 1", "schema = true"), "trust.invalid", "schema"),
    "schema 1.0": (WHOLE.replace("schema = 1", "schema = 1.0"), "trust.invalid", "schema"),
    "schema of the past": (WHOLE.replace("schema = 1", "schema = 0"), "trust.invalid", "schema"),
    "a date, not a text": (WHOLE.replace('"2027-01-01T00:00:00Z"', "2027-01-01T00:00:00Z"), "trust.invalid", "type"),
    "no such day": (WHOLE.replace("2027-01-01T", "2027-02-30T"), "trust.invalid", "day"),
    "ends before it begins": (WHOLE.replace("2028-01", "2026-01"), "trust.invalid", "not later"),
    "no ids": (WHOLE.replace('ids = ["*"]', "ids = []"), "trust.invalid", "ids"),
    "ids left out": (WHOLE.replace('ids = ["*"]', ""), "trust.invalid", "ids"),
    "no roles": (WHOLE.replace('roles = ["publisher"]', "roles = []"), "trust.invalid", "roles"),
    "two of one name": (WHOLE.replace('"market"', '"Acme release"'), "trust.invalid", "two keys"),
    "a reviewer who publishes": (WHOLE.replace('["publisher"]', '["publisher", "reviewer"]'), "trust.invalid", "his own"),
    "an unreachable threshold": (WHOLE.replace("threshold = 1", "threshold = 2"), "trust.invalid", "only 1"),
    "two rules for a role": (WHOLE + '[[role]]\nname = "marketplace"\nthreshold = 1\n', "trust.invalid", "second rule"),
    "no key at all": (WHOLE.replace(A.public.base64(), "AAAA"), "trust.invalid", "not a public key"),
    "a weak key": (WHOLE.replace(A.public.base64(), base64.b64encode(bytes.fromhex("302a300506032b6570032100") + bytes(32)).decode()), "trust.invalid", "small order"),
    "not TOML": ("schema = ", "trust.toml", "TOML"),
    "not text": (b"\xff\xfe", "trust.toml", "UTF-8"),
    "bidi": (WHOLE.replace("market", "mar\u202eket"), "trust.toml", "U\\+202E"),
    "too large": (b"#" * (256 * 1024 + 1), "trust.toml", "limit"),
    "an array for a table": ("schema = 1\nkey = 1", "trust.invalid", "key"),
}  # fmt: skip


@pytest.mark.case("MAN-01", "MAN-06", "MAN-08")
@pytest.mark.parametrize(("text", "code", "words"), FAULTS.values(), ids=FAULTS)
def test_refuses_a_faulty_store(text: str | bytes, code: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        store_of(tmp_path, text)

    assert caught.value.code == code


@pytest.mark.case("SIG-12")
def test_refuses_one_key_under_two_names(tmp_path: Path) -> None:
    text = WHOLE.replace(B.public.pem().decode(), A.public.pem().decode())

    assert "the same key as Acme release" in str(refused(tmp_path, text))


@pytest.mark.case("SIG-25")
def test_refuses_a_store_that_anyone_may_write(tmp_path: Path) -> None:
    store_of(tmp_path, WHOLE)
    (tmp_path / "trust.toml").chmod(0o646)
    with pytest.raises(PolicyError, match="chmod 0644") as caught:
        TrustStore.load(tmp_path / "trust.toml")
    assert caught.value.code == "trust.permissions"

    (tmp_path / "trust.toml").chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(PolicyError, match="anyone may write") as caught:
        TrustStore.load(tmp_path)
    assert caught.value.code == "trust.permissions"


def test_refuses_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        TrustStore.load(tmp_path / "none.toml")

    assert caught.value.code == "trust.unreadable"


def test_refuses_a_directory_of_too_many_files(tmp_path: Path) -> None:
    for n in range(65):
        (tmp_path / f"{n}.toml").touch()

    with pytest.raises(PolicyError, match="more than 64 files"):
        TrustStore.load(tmp_path)


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda t: f"schema = 1\n{t}".encode()))
def test_refuses_noise_with_our_own_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.toml"
    path.write_bytes(noise)
    try:
        store = TrustStore.load(path)
    except CapwasmError:
        return
    assert store.keys == ()


@pytest.mark.parametrize(
    ("pattern", "plugin_id", "matches"),
    [
        ("*", "acme.weather", True),
        ("acme.*", "acme.weather", True),
        ("acme.*", "acme.weather.beta", True),
        ("acme.tools.*", "acme.tools.x", True),
        ("acme.weather", "acme.weather", True),
        ("acme.*", "acmeevil.x", False),
        ("acme.*", "acme", False),
        ("acme.*", "evil.acme.x", False),
        ("acme.tools.*", "acme.toolsx.y", False),
        ("acme.weather", "acme.weather.beta", False),
        ("acme.weather", "acme.weathe", False),
    ],
)
def test_a_scope_matches_whole_labels(pattern: str, plugin_id: str, matches: bool) -> None:
    assert id_matches(pattern, plugin_id) is matches


def judge(
    keys: list[TrustedKey],
    by: list[int],
    *,
    any_of: tuple[Role, ...] = ("publisher",),
    reviewed: bool = False,
    thresholds: dict[Role, int] | None = None,
) -> tuple[str, ...] | str:
    store = TrustStore(tuple(keys), thresholds or {})
    try:
        counted = store.judge(
            [keys[n] for n in by],
            Requirement(frozenset(any_of), reviewed=reviewed),
            NOW,
            plugin_id="acme.weather",
        )
    except VerificationError as exc:
        return exc.code
    return tuple(k.name for k in counted)


PUBLISHER = trusted(A, "publisher", name="a")
REVIEWER = trusted(B, "reviewer", name="b")
MARKET = trusted(C, "marketplace", name="c", ids=("*",))


def test_allows_one_of_several_roles() -> None:
    both: tuple[Role, ...] = ("publisher", "marketplace")

    assert judge([PUBLISHER, MARKET], [1], any_of=both) == ("c",)
    assert judge([PUBLISHER, MARKET], [0, 1], any_of=both) == ("a", "c")


def test_refuses_a_role_that_was_not_asked_for() -> None:
    assert judge([PUBLISHER, MARKET], [1]) == "verify.key-role"
    assert judge([PUBLISHER, REVIEWER], [1]) == "verify.key-role"
    assert judge([PUBLISHER], []) == "verify.untrusted-key"


def test_refuses_a_plugin_that_nobody_reviewed() -> None:
    assert judge([PUBLISHER, REVIEWER], [0], reviewed=True) == "verify.threshold"
    assert judge([PUBLISHER, REVIEWER], [1], reviewed=True) == "verify.threshold"
    assert judge([PUBLISHER, REVIEWER], [0, 1], reviewed=True) == ("a", "b")


@pytest.mark.case("SIG-12")
def test_refuses_one_key_that_comes_twice_for_two() -> None:
    two = [trusted(A, name="a"), trusted(B, name="b")]

    assert judge(two, [0, 0], thresholds={"publisher": 2}) == "verify.threshold"
    assert judge(two, [0, 1], thresholds={"publisher": 2}) == ("a", "b")


def test_refuses_two_roles_of_one_key_added_up() -> None:
    keys = [trusted(A, "publisher", "official", name="a"), trusted(B, "official", name="b"),
            trusted(C, "publisher", name="c")]  # fmt: skip
    need: dict[Role, int] = {"publisher": 2, "official": 2}

    assert judge(keys, [0], any_of=("publisher", "official"), thresholds=need) == "verify.threshold"
    assert (
        judge(keys, [1, 2], any_of=("publisher", "official"), thresholds=need) == "verify.threshold"
    )
    assert judge(keys, [0, 1], any_of=("publisher", "official"), thresholds=need) == ("a", "b")


@pytest.mark.case("SIG-16", "SIG-18")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"revoked": True}, "verify.key-revoked"),
        ({"not_after": NOW}, "verify.key-expired"),
        ({"not_before": NOW + timedelta(seconds=1)}, "verify.key-expired"),
        ({"ids": ("acmeevil.*", "acme.weathers")}, "verify.key-scope"),
        ({"revoked": True, "not_after": NOW, "ids": ("beta.x",)}, "verify.key-revoked"),
    ],
)
def test_refuses_a_key_that_does_not_count_and_allows_its_twin(
    words: dict[str, object], code: str
) -> None:
    assert judge([trusted(A, **words)], [0]) == code
    edge = {"not_before": NOW, "not_after": NOW + timedelta(seconds=1)}
    assert judge([trusted(A, name="a", **edge)], [0]) == ("a",)


def test_tells_the_gravest_reason_and_all_of_them() -> None:
    keys = [trusted(A, name="late", not_after=NOW), trusted(B, name="gone", revoked=True)]

    with pytest.raises(VerificationError) as caught:
        TrustStore(tuple(keys)).judge(keys, Requirement(), NOW, strangers=["ab" * 32])

    assert caught.value.code == "verify.key-revoked"
    for word in ("late", "gone", "abababab", "role publisher", "add a [[key]]"):
        assert word in str(caught.value)


@pytest.mark.parametrize("any_of", [frozenset(), frozenset({"reviewer"}), frozenset({"root"})])
def test_refuses_a_requirement_that_anybody_meets(any_of: frozenset[Role]) -> None:
    with pytest.raises(ValueError, match="any_of"):
        Requirement(any_of)


@pytest.mark.parametrize(
    ("roles", "fault"),
    [
        ({"security", "engineering"}, ""),
        ({"security"}, ""),
        ({"security", "publisher"}, "no other role than those two"),
        ({"engineering", "reviewer"}, "no other role"),
    ],
)
def test_who_signs_exceptions_signs_nothing_else(roles: Any, fault: str) -> None:
    if not fault:
        TrustStore((trusted(A, *roles),))
        return
    with pytest.raises(PolicyError, match=fault):
        TrustStore((trusted(A, *roles),))


@pytest.mark.parametrize(
    ("name", "whose"),
    [("ann", "ann"), ("Ann Lee/laptop", "ann lee"), ("ann/", "ann"), ("ANN  lee/x/y", "ann lee")],
)
def test_a_person_is_what_stands_before_the_slash(name: str, whose: str) -> None:
    assert person(name) == whose


def test_refuses_a_store_made_in_code_that_contradicts_itself() -> None:
    with pytest.raises(PolicyError, match="a name before the slash"):
        TrustStore((trusted(A, "reviewer", name="/laptop"),))
    with pytest.raises(PolicyError, match="time zone"):
        TrustStore((trusted(A, not_after=datetime(2027, 1, 1)),))  # noqa: DTZ001
    with pytest.raises(PolicyError, match="one or more roles"):
        TrustStore((trusted(A, ids=()),))
    with pytest.raises(PolicyError, match="threshold of 1"):
        TrustStore((trusted(A),), {"publisher": 0})
