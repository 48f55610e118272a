"""The `[isolation]` table: each word is shown by what it lets run, where, and behind what."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from capwasm.errors import GrantDeniedError, ManifestError, PolicyError
from capwasm.grants.consent import Subject, consent_for
from capwasm.grants.decide import decide
from capwasm.grants.explain import render, to_dict
from capwasm.grants.isolation import Isolation
from capwasm.grants.manifest import Manifest, parse_manifest
from capwasm.grants.policy import Policy
from capwasm.grants.resolve import Grants, resolve
from capwasm.grants.schema import policy_schema
from capwasm_shim.layers import DEFAULT_REQUIRED, Layer
from tests.toycaps import TOYS, manifest_text

CODE = "a" * 64
LISTED = "sha256:" + CODE


def load(body: str, above: str = "") -> Policy:
    return Policy.load(f"schema = 1\n{above}[isolation]\n{body}".encode(), TOYS)


def manifest(kind: str = "component", isolation: str | None = None) -> Manifest:
    text = manifest_text().decode().replace('"component"', f'"{kind}"')
    word = "" if isolation is None else f'isolation = "{isolation}"\n'
    return parse_manifest((text + word).encode(), TOYS)


def grants(policy: Policy, asked: Manifest) -> Grants:
    return resolve(asked, policy, consent_for(Subject.of(asked, CODE)), TOYS, core="0.3.0")


def denial(policy: Policy, asked: Manifest) -> GrantDeniedError:
    with pytest.raises(GrantDeniedError) as caught:
        grants(policy, asked)
    return caught.value


def page(policy: Policy, asked: Manifest) -> str:
    found = decide(asked, policy, consent_for(Subject.of(asked, CODE)), TOYS, core=None)
    out = io.StringIO()
    render(found, Console(file=out, width=100))
    return out.getvalue()


# --- process ---------------------------------------------------------------------------------


def test_word_process_moves_the_components_that_it_names() -> None:
    policy = load('process = ["acme.*"]')

    ours = grants(policy, manifest()).isolation
    assert ours.process
    assert ours.by == ('isolation.process "acme.*"',)
    for other in ("acmeevil.weather", "other.acme"):
        assert not policy.isolation.for_plugin(other, "component").process


def test_a_component_runs_in_the_core_unless_somebody_says_otherwise() -> None:
    for policy in (Policy.nothing(), load("")):
        assert not grants(policy, manifest()).isolation.process
        assert not grants(policy, manifest(isolation="in-process")).isolation.process


def test_policy_plugin_and_core_may_each_ask_for_a_process() -> None:
    nothing = grants(Policy.nothing(), manifest())

    assert grants(Policy.nothing(), manifest(isolation="process")).isolation.by == (
        "plugin.isolation",
    )
    assert nothing.apart("the core").isolation.by == ("the core",)
    assert nothing.apart("the core").limits == nothing.limits
    assert not nothing.isolation.process


def test_refuses_to_take_a_process_away() -> None:
    """A plugin that asks to share the core's process changes nothing of what the policy says."""
    found = grants(load('process = ["*"]'), manifest(isolation="in-process"))

    assert found.isolation.process


# --- native ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["acme.weather", "acme.*", "*"])
def test_word_native_lets_the_plugins_run_that_it_names(pattern: str) -> None:
    found = grants(load(f'native = ["{pattern}"]'), manifest("native"))

    assert found.isolation.process
    assert found.isolation.fault is None


@pytest.mark.parametrize("body", ["", "native = []", 'native = ["acme.weathers", "acmeevil.*"]'])
def test_refuses_native_code_that_is_not_named(body: str) -> None:
    for asked in (manifest("native"), manifest("native", "process")):
        error = denial(load(body), asked)

        assert error.code == "grant.native"
        assert error.faults[0].path == "plugin.kind"


def test_refuses_native_code_by_default_and_a_component_is_not_asked() -> None:
    assert denial(Policy.nothing(), manifest("native")).code == "grant.native"
    assert grants(Policy.nothing(), manifest()).isolation.fault is None


def test_the_line_that_is_told_lets_it_run() -> None:
    bare = denial(Policy.nothing(), manifest("native")).faults[0].fix
    assert bare == '[isolation]\nnative = ["acme.weather"]'
    assert grants(Policy.load(f"schema = 1\n{bare}".encode(), TOYS), manifest("native"))


def test_the_line_keeps_what_stands_and_says_where_it_goes() -> None:
    standing = load('native = ["b.c"]\nprocess = ["x.y"]', above='owner = "ann"\n')

    fix = denial(standing, manifest("native")).faults[0].fix

    assert fix == 'native = ["b.c", "acme.weather"]  # in [isolation], line 3'
    assert grants(load(fix), manifest("native"))


def test_other_things_that_are_missing_are_told_with_it() -> None:
    text = manifest_text('[[door]]\ndoor = "front"\n').decode().replace('"component"', '"native"')

    error = denial(Policy.nothing(), parse_manifest(text.encode(), TOYS))

    assert [f.path for f in error.faults] == ["plugin.kind", "door[0]", "door[0]"]


def test_refuses_a_native_plugin_that_wants_to_share_the_core() -> None:
    with pytest.raises(ManifestError) as caught:
        manifest("native", "in-process")

    assert [f.path for f in caught.value.faults] == ["plugin.isolation"]


# --- require ---------------------------------------------------------------------------------


def test_word_require_says_what_must_hold() -> None:
    found = grants(load('process = ["*"]\nrequire = ["seccomp", "own-user"]'), manifest())

    assert found.isolation.required == {Layer.SECCOMP, Layer.OWN_USER}
    assert found.isolation.layers() == ["own-user", "seccomp"]


def test_left_out_the_default_must_hold_and_an_empty_list_is_no_default() -> None:
    for policy in (Policy.nothing(), load("")):
        assert policy.isolation.for_plugin("a.b", "native").required == DEFAULT_REQUIRED
        assert policy.isolation.for_legacy(CODE).required == DEFAULT_REQUIRED
    assert load("require = []").isolation.for_plugin("a.b", "native").required == frozenset()


def test_refuses_unknown_layers_all_at_once_and_lists_the_valid_ones() -> None:
    with pytest.raises(PolicyError) as caught:
        load('require = ["secomp", "seccomp", "landlock"]')

    assert [f.path for f in caught.value.faults] == ["isolation.require[0]", "isolation.require[2]"]
    for fault, word in zip(caught.value.faults, ("secomp", "landlock"), strict=True):
        assert f"no layer '{word}'" in fault.message
        assert all(layer.value in fault.message for layer in Layer)


def test_the_line_without_a_layer_requires_the_others() -> None:
    found = grants(load('process = ["*"]'), manifest()).isolation

    line = found.line_without([Layer.LANDLOCK_NET])

    assert "# in [isolation], line 2" in line
    kept = load(line).isolation.for_plugin("a.b", "native").required
    assert kept == DEFAULT_REQUIRED - {Layer.LANDLOCK_NET}


# --- legacy ----------------------------------------------------------------------------------


def test_word_legacy_lets_exactly_those_bytes_run() -> None:
    found = load(f'legacy = ["{LISTED}"]').isolation.for_legacy(CODE)

    assert found.fault is None
    assert found.process


def test_refuses_a_file_that_is_not_listed_and_tells_the_line() -> None:
    for policy in (Policy.nothing(), load(""), load(f'legacy = ["sha256:{"b" * 64}"]')):
        fault = policy.isolation.for_legacy(CODE).fault

        assert fault is not None
        assert fault.fix is not None
        mended = fault.fix if fault.fix.startswith("[isolation]") else f"[isolation]\n{fault.fix}"
        after = Policy.load(f"schema = 1\n{mended}".encode(), TOYS).isolation
        assert after.for_legacy(CODE).fault is None
        assert set(policy.isolation.rule.legacy) <= set(after.rule.legacy)


@pytest.mark.parametrize(
    "word", ["a" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 63, f"{LISTED}\\n", "*", "sha512:00"]
)
def test_refuses_what_is_no_digest(word: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(f'legacy = ["{word}"]')

    assert caught.value.faults[0].path.startswith("isolation.legacy[0]")


# --- the table -------------------------------------------------------------------------------


def test_each_word_has_a_test_of_its_own() -> None:
    words = policy_schema(TOYS)["properties"]["isolation"]["properties"]

    assert {n.split("_")[2] for n in globals() if n.startswith("test_word_")} == set(words)


@pytest.mark.parametrize(
    "body",
    [
        'process = "acme.*"',
        'process = ["Acme.x"]',
        'native = [""]',
        'native = ["acme*"]',
        "native = true",
        "legacy = [1]",
        "require = 1",
        'layers = ["seccomp"]',
    ],
)
def test_refuses_what_is_malformed(body: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(body)

    assert caught.value.faults[0].path.startswith("isolation")


def test_remarks_say_what_is_weaker_than_the_default() -> None:
    def told(body: str) -> list[str]:
        return [f.path for f in load(body).isolation.remarks()]

    assert told("") == []
    assert told('native = ["acme.*"]\nrequire = ["' + '", "'.join(Layer) + '"]') == []
    assert told('native = ["*"]\nrequire = []') == ["isolation.require", "isolation.native"]


def test_explain_says_where_it_runs_and_what_must_hold() -> None:
    assert "in the core's own process" in page(Policy.nothing(), manifest())
    text = page(load('process = ["*"]\nrequire = ["seccomp"]'), manifest())
    assert 'in a process of its own (isolation.process "*")' in text
    assert "behind   seccomp" in text


def test_explain_says_why_native_code_may_not_run() -> None:
    text, asked = page(Policy.nothing(), manifest("native")), manifest("native")

    assert "isolation.native does not let its native code run" in text
    assert 'native = ["acme.weather"]' in text
    found = decide(asked, Policy.nothing(), consent_for(Subject.of(asked, CODE)), TOYS, core=None)
    data = to_dict(found)
    assert not data["granted"]
    assert data["isolation"]["refused"]["path"] == "plugin.kind"
    assert data["isolation"]["process"]
    assert "seccomp" in data["isolation"]["required"]


PATTERNS = st.sampled_from(["*", "acme.*", "acme.weather", "acme.weather.*", "b.c"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(PATTERNS, max_size=3),
    st.lists(PATTERNS, max_size=3),
    st.sampled_from(["acme.weather", "acme.x", "b.c", "acmeevil.x"]),
    st.sampled_from(["component", "native"]),
    st.booleans(),
)
def test_more_words_never_move_code_into_the_core(
    process: list[str], more: list[str], plugin: str, kind: str, asks: bool
) -> None:
    def said(patterns: list[str], asked: str) -> Isolation:
        written = ", ".join(f'"{p}"' for p in patterns)
        return load(f"process = [{written}]").isolation.for_plugin(plugin, kind, asked=asked)

    before = said(process, "in-process")
    after = said(process + more, "process" if asks else "in-process")

    assert after.process >= before.process
    assert after.process or kind == "component"
    assert before.apart("the core").process
