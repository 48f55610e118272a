"""Stage 3: what the operator allows.  Each word of the policy is shown by what it changes."""

from __future__ import annotations

import contextlib
import copy
import os
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.capsule.trust import ORIGINS
from capwasm.errors import PolicyError
from capwasm.grants._document import join
from capwasm.grants.policy import Policy
from capwasm.grants.schema import policy_schema
from capwasm.limits import CEILING
from tests.stages.test_manifest import BOMBS, TOKENS
from tests.toycaps import TOYS, BellClause, DoorClause


def load(body: str) -> Policy:
    return Policy.load(f"schema = 1\n{body}".encode(), TOYS)


def refusal(data: bytes | str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        Policy.load(data.encode() if isinstance(data, str) else data, TOYS)
    return caught.value


def paths(body: str) -> list[str]:
    return sorted(f.path for f in refusal(f"schema = 1\n{body}").faults)


def doors(policy: Policy, plugin_id: str) -> set[str | None]:
    return {c.door for c in policy.for_plugin(plugin_id).allowed("door")}


def test_no_policy_allows_nothing() -> None:
    for policy in (Policy.nothing(), load("")):
        said = policy.for_plugin("acme.weather")

        assert not said.allowed("door")
        assert not said.allowed("bell")
        assert policy.automatic == frozenset()
        assert policy.requirement.any_of == ORIGINS


def test_refuses_a_policy_made_by_anyone_else() -> None:
    with pytest.raises(TypeError):
        Policy(automatic=frozenset({"door"}))
    with pytest.raises(TypeError):
        copy.copy(Policy.nothing())


# --- each word -------------------------------------------------------------------------------


def test_word_owner() -> None:
    assert load('owner = "security@acme.com"').owner == "security@acme.com"
    assert load("").owner == ""


def test_word_review_by() -> None:
    policy = load('review-by = "2027-01-31"')

    assert policy.governance(date(2027, 1, 16)).due == "ok"
    assert policy.governance(date(2027, 1, 17)).due == "soon"
    assert policy.governance(date(2027, 1, 31)).due == "soon"
    assert policy.governance(date(2027, 2, 1)).due == "overdue"
    assert load("").governance(date(2999, 1, 1)).due == "no-date"


def test_word_trust_require() -> None:
    assert load('[trust]\nrequire = ["official"]').requirement.any_of == {"official"}
    assert load("[trust]").requirement.any_of == ORIGINS


def test_word_trust_reviewed() -> None:
    assert load("[trust]\nreviewed = true").requirement.reviewed
    assert not load("[trust]").requirement.reviewed


def test_word_consent_automatic() -> None:
    assert load('[consent]\nautomatic = ["bell"]').automatic == {"bell"}
    assert load("[consent]").automatic == frozenset()


def test_word_revocation() -> None:
    rule = load(
        '[revocation]\nmax-age-hours = 6\nstale = "refuse"\n'
        'url = "https://acme.com/feed"\nevery-minutes = 5'
    ).revocation
    assert (rule.max_age_hours, rule.stale) == (6, "refuse")
    assert (rule.url, rule.every_minutes) == ("https://acme.com/feed", 5)
    assert load("").revocation.stale == "report"
    for wrong in ('stale = "ignore"', "max-age-hours = 0", 'url = "ftp://acme.com/"'):
        with pytest.raises(PolicyError) as caught:
            load("[revocation]\n" + wrong)
        assert caught.value.code == "policy.invalid"


def test_word_audit() -> None:
    rule = load("[audit]\nkeep-days = 400\nmax-megabytes = 2000\nsegment-hours = 24").audit
    assert (rule.keep_days, rule.max_megabytes, rule.segment_hours) == (400, 2000, 24)
    assert load("").audit.keep_days == 0
    for wrong in ("keep-days = -1", "max-megabytes = 1", "flush-ms = 0", "keep = 1"):
        with pytest.raises(PolicyError) as caught:
            load("[audit]\n" + wrong)
        assert caught.value.code == "policy.invalid"


def test_word_updates() -> None:
    rule = load(
        "[updates]\nautomatic = false\nmin-age-hours = 48\n"
        "error-budget = { calls = 20, hours = 2, failures = 3 }"
    ).updates
    assert (rule.automatic, rule.min_age_hours) == (False, 48)
    assert (rule.error_budget.calls, rule.error_budget.hours) == (20, 2)
    assert rule.error_budget.failures == 3
    assert load("").updates.automatic
    assert load("[updates]\nerror-budget = { failures = 0 }").updates.error_budget.calls == 100
    for wrong in ("automatic = 1", "min-age-hours = -1", "error-budget = { calls = 0 }", "x = 1"):
        with pytest.raises(PolicyError) as caught:
            load("[updates]\n" + wrong)
        assert caught.value.code == "policy.invalid"


def test_word_strikes() -> None:
    # What each does: tests/monitor/test_strikes.py.
    rule = load("[strikes]\nsuspend = 7\npoints = { crash = 9 }\n").strikes
    assert (rule.suspend, rule.points.crash, rule.points.denial) == (7, 9, 1)
    assert load("").strikes.suspend == 1000
    assert load("").strikes.evict_after == 0
    for wrong in ("suspend = -1", "points = { x = 1 }", 'grave = "x y"', "strikes = 3"):
        with pytest.raises(PolicyError) as caught:
            load("[strikes]\n" + wrong)
        assert caught.value.code == "policy.invalid"


def test_word_limits_bounds_every_plugin() -> None:
    policy = load('[limits]\nfuel = 500\n[plugins."acme.*".limits]\nfuel = 900\nwall-ms = 7')

    ours, other = policy.for_plugin("acme.weather"), policy.for_plugin("other.x")
    assert (ours.limits.fuel, ours.limits.wall_ms) == (500, 7)
    assert (other.limits.fuel, other.limits.wall_ms) == (500, CEILING.wall_ms)
    assert ours.sources == {"fuel": "limits", "wall-ms": 'plugins."acme.*".limits'}
    assert ours.raised == {"fuel", "wall-ms"}
    assert other.raised == frozenset()


def test_word_deny_speaks_of_every_plugin() -> None:
    policy = load('[[deny.door]]\ndoor = "back"\n[deny.bell]\ntunes = ["x"]')

    for plugin in ("acme.weather", "other.x"):
        said = policy.for_plugin(plugin)
        assert set(said.denied("door")) == {DoorClause("back")}
        assert set(said.denied("bell")) == {BellClause("x")}


def test_word_plugins_deny_speaks_of_its_plugins() -> None:
    policy = load('[[plugins."acme.*".deny.door]]\ndoor = "back"')

    assert policy.for_plugin("acme.weather").denied("door")
    assert not policy.for_plugin("other.x").denied("door")


def test_word_plugins_by_selector() -> None:
    policy = load("""
        [[plugins."acme.weather".door]]
        door = "one"
        [[plugins."acme.*".door]]
        door = "all"
        [[plugins."*".door]]
        door = "any"
    """)

    assert doors(policy, "acme.weather") == {"one", "all", "any"}
    assert doors(policy, "acme.notes") == {"all", "any"}
    assert doors(policy, "acme.weather.extra") == {"all", "any"}
    assert doors(policy, "acmeevil.weather") == {"any"}
    assert doors(policy, "evil.acme.weather") == {"any"}


def test_rules_add_up_and_limits_only_go_down() -> None:
    policy = load("""
        [plugins."acme.*".bell]
        tunes = ["a"]
        [plugins."acme.*".limits]
        fuel = 10
        depth = 3
        [plugins."acme.weather".bell]
        tunes = ["b"]
        [plugins."acme.weather".limits]
        fuel = 20
        depth = 2
    """)
    said = policy.for_plugin("acme.weather")

    assert set(said.allowed("bell")) == {BellClause("a"), BellClause("b")}
    assert (said.limits.fuel, said.limits.depth) == (10, 2)


def test_word_isolation() -> None:
    """What each of its words does is shown in test_isolation."""
    here = load('[isolation]\nprocess = ["acme.*"]').isolation

    assert here.for_plugin("acme.weather", "component").process
    assert not load("").isolation.for_plugin("acme.weather", "component").process


def test_word_review() -> None:
    """What each of its words does is shown in tests/review/test_rules.py."""
    assert load("[review]\nrequired = true\napprovals = 2").review.approvals == 2
    assert not load("").review.required


def test_word_scan() -> None:
    """What each of its words does is shown in tests/cli/test_scan.py and tests/scan."""
    assert load('[scan]\nids = ["acme.weather"]').scan.ids == ("acme.weather",)
    assert load("").scan.known_bad == ""


def test_word_governance() -> None:
    """What each of its words does is shown in tests/governance/test_due.py."""
    assert load("[governance]\nnotice-days = 3").governed.notice_days == 3
    assert load("").governed.overdue == "warn"


def test_each_word_of_the_schema_has_a_test_of_its_own() -> None:
    schema = policy_schema(TOYS)
    named = {n.removeprefix("test_word_") for n in globals() if n.startswith("test_word_")}
    words = set(schema["properties"]) - {"schema"}
    words |= {f"trust_{w}" for w in schema["properties"]["trust"]["properties"]}
    words |= {f"consent_{w}" for w in schema["properties"]["consent"]["properties"]}

    missing = [w for w in words if not any(n.startswith(w.replace("-", "_")) for n in named)]
    assert missing == []


# --- where a rule stands ---------------------------------------------------------------------


def test_a_rule_knows_its_path_and_line() -> None:
    policy = load(
        '# a comment\n[[plugins."acme.*".door]]\ndoor = "a"\n\n  [[plugins."acme.*".door]]'
        '\ndoor = "b"\n[plugins."acme.*".bell]\ntunes = [\n["x"][0],\n]\n'.replace(
            '["x"][0]', '"x"'
        )
    )
    said = policy.for_plugin("acme.weather")

    assert [(r.path, r.line) for r in said.allow["door"]] == [
        ('plugins."acme.*".door[0]', 3),
        ('plugins."acme.*".door[1]', 6),
    ]
    assert [(r.path, r.line) for r in said.allow["bell"]] == [('plugins."acme.*".bell', 8)]


def test_a_rule_written_inline_has_no_line() -> None:
    policy = load('[plugins."acme.*"]\ndoor = [{ door = "a" }]')

    (rule,) = policy.for_plugin("acme.weather").allow["door"]
    assert (rule.path, rule.line) == ('plugins."acme.*".door[0]', None)


def test_no_lines_where_a_header_may_be_text() -> None:
    policy = load('owner = """x"""\n[[plugins."acme.*".door]]\ndoor = "a"')

    assert policy.for_plugin("acme.weather").allow["door"][0].line is None


# --- refusals --------------------------------------------------------------------------------


def test_refuses_with_all_faults_at_once() -> None:
    body = """
        colour = "red"
        review-by = "soon"
        [trust]
        require = ["reviewer"]
        reviewed = 1
        [consent]
        automatic = ["bell", "siren"]
        [limits]
        fuel = 0
        [[deny.door]]
        door = 1
        [plugins."ACME.x"]
        [plugins."acme.x"]
        net = 1
        [[plugins."acme.x".door]]
        acts = []
        [plugins."acme.x".deny.siren]
        [plugins."acme.x".limits]
        coffee = 1
    """

    assert paths(body) == [
        "", "consent.automatic[1]", "deny.door[0].door", "limits.fuel", 'plugins."ACME.x"',
        'plugins."acme.x"', 'plugins."acme.x".deny', 'plugins."acme.x".door[0].acts',
        'plugins."acme.x".limits.coffee', "review-by", "trust.require", "trust.require[0]", "trust.reviewed",
    ]  # fmt: skip


def test_refuses_a_capability_at_the_top_and_says_where_it_belongs() -> None:
    error = refusal("schema = 1\n[[door]]\n")

    assert '[[plugins."*".door]]' in str(error)


@pytest.mark.parametrize("roles", ["[]", '["reviewer"]', '["official", "reviewer"]', '["me"]'])
def test_refuses_a_requirement_that_anyone_could_meet(roles: str) -> None:
    assert refusal(f"schema = 1\n[trust]\nrequire = {roles}").faults[0].path.startswith("trust")


@pytest.mark.case("MAN-11")
@pytest.mark.parametrize(
    "selector", ["", "acme", "*.weather", "acme.*.x", "**", "a*", "Acme.*", "acme.", "../x", "*.*"]
)
def test_refuses_a_selector_that_is_no_pattern_of_ids(selector: str) -> None:
    assert paths(f'[plugins."{selector}".bell]') == [join("plugins", selector)]


@pytest.mark.case("MAN-08")
@pytest.mark.parametrize(
    ("schema", "code"),
    [("", "policy.invalid"), ("schema = 1.0", "policy.invalid"), ("schema = true", "policy.invalid"),
     ("schema = 2", "policy.schema"), ("schema = 0", "policy.invalid")],
)  # fmt: skip
def test_refuses_another_schema(schema: str, code: str) -> None:
    assert refusal(schema).code == code


@pytest.mark.case("MAN-08")
@pytest.mark.parametrize(
    "body",
    ["plugins = 1", "[[plugins]]", 'plugins."acme.x" = 1', "deny = 1", "[[deny]]", "trust = 1",
     "consent = []", "limits = 3", "owner = 1", '[plugins."acme.x"]\ndeny = 1',
     '[plugins."acme.x"]\nlimits = 1', '[plugins."acme.x"]\ndoor = 1',
     '[[plugins."acme.x".bell]]', "review-by = 2027-01-31", "[limits]\nfuel = nan"],
)  # fmt: skip
def test_refuses_a_value_of_the_wrong_type(body: str) -> None:
    assert refusal(f"schema = 1\n{body}").code == "policy.invalid"


@pytest.mark.case("MAN-06")
def test_refuses_hidden_characters_in_what_denials_show() -> None:
    assert paths('owner = "a\\u202Eb"') == ["owner"]
    assert paths('owner = "a\\nb"') == ["owner"]


@pytest.mark.case("MAN-01", "MAN-02")
@pytest.mark.parametrize("name", BOMBS)
def test_refuses_an_attack_on_the_parser(name: str) -> None:
    refusal(b"schema = 1\ncolour = 1\n" + BOMBS[name])


# --- the file --------------------------------------------------------------------------------


def test_allows_a_file_of_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('schema = 1\nowner = "me"\n')
    path.chmod(0o644)

    for source in (path, str(path)):
        assert Policy.load(source, TOYS).owner == "me"
    assert Policy.load(path, TOYS).source == str(path)


def test_refuses_a_file_that_anyone_may_write(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("schema = 1\n")
    path.chmod(0o666)

    with pytest.raises(PolicyError) as caught:
        Policy.load(path, TOYS)
    assert caught.value.code == "policy.permissions"


def test_refuses_a_file_that_is_missing_or_special(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    for path in (tmp_path / "none", tmp_path / "fifo", tmp_path, "/dev/zero", "a\0b"):
        with pytest.raises(PolicyError) as caught:
            Policy.load(path, TOYS)
        assert caught.value.code == "policy.unreadable"


def test_refuses_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"#" * 300 * 1024)

    with pytest.raises(PolicyError) as caught:
        Policy.load(path, TOYS)
    assert caught.value.code == "policy.toml"


# --- any input -------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_policy_or_a_policy_error(data: bytes) -> None:
    with contextlib.suppress(PolicyError):
        Policy.load(data, TOYS)


WORDS = st.one_of(
    TOKENS,
    st.sampled_from(["[plugins", '."acme.*"', ".deny", ".door]", "[[deny.door]]", "[trust]", "require",
                     "[consent]", "automatic", '["bell"]', "owner", "review-by", '"2027-01-31"']),
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(WORDS, max_size=30).map(" ".join))
def test_any_words_are_a_policy_or_a_policy_error(text: str) -> None:
    with contextlib.suppress(PolicyError):
        load(text).for_plugin("acme.weather")
