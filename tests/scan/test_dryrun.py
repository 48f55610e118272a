"""Dry runs: what code tries in the sandbox is held against its manifest."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime
from click.testing import CliRunner

from capwasm.caps import standard_capabilities
from capwasm.capsule.pack import pack
from capwasm.cli import capwasm
from capwasm.engine import types as t
from capwasm.errors import ShimError
from capwasm.events import DENIED, Event
from capwasm.grants.scan import ScanRule
from capwasm.learning import Learner
from capwasm.review.finding import Finding, Severity
from capwasm.runtime import Runtime
from capwasm.scan import dryrun
from capwasm.scan.model import Context
from capwasm.scan.samples import sample
from capwasm.scan.subject import Subject
from tests.kit import guest

from .natives import NEEDS_COMPILER, PLUGIN, TRIPLE, build
from .supply import manifest, report, subject

HOSTED = PLUGIN.replace("(void)host;", "saved = host;").replace(
    "static const capwasm_description", "static const capwasm_host *saved;\nstatic const capwasm_description", 1
)  # fmt: skip
RUNS_GIT = '({ capwasm_exec_output o; saved->exec->run("git", 3, NULL, 0, NULL, 0, &o); 0; })'
USES_KV = '({ capwasm_bytes b; saved->kv->get("k", 1, &b); 0; })'


def wanting(dry: bool = True) -> Context:
    return Context(
        rule=ScanRule.model_validate({"dry-run": dry}), capabilities=standard_capabilities()
    )


def found_in(what: Subject) -> dict[str, Finding]:
    made = report(dryrun.SCANNERS, what, wanting())
    if "can't confine" in made.scanners[0].skipped:
        pytest.skip(made.scanners[0].skipped)
    assert made.scanners[0].skipped == ""
    return {f.rule: f for f in made.findings}


def code(data: bytes, more: str = "") -> Subject:
    return subject({"plugin.toml": manifest(more=more), "plugin.wasm": data})


def library(data: bytes, more: str = "") -> Subject:
    return subject({"plugin.toml": manifest("native", more=more), f"lib/{TRIPLE}/plugin.so": data})


@pytest.fixture
def spinning() -> bytes:
    return bytes(
        wasmtime.wat2wasm(
            """(component
            (core module $m (func (export "spin") (loop $l (br $l))))
            (core instance $i (instantiate $m))
            (func (export "spin") (canon lift (core func $i "spin"))))"""
        )
    )


def test_what_a_component_tries_and_does_not_ask_for_is_found() -> None:
    found = found_in(code(guest("slugs")))

    assert set(found) == {"dryrun.undeclared"}
    one = found["dryrun.undeclared"]
    assert (one.severity, one.place) == (Severity.MEDIUM, "dry run:random")
    assert "[random]" in one.fix


def test_what_it_asks_for_is_not_found() -> None:
    assert found_in(code(guest("slugs"), "[random]\n")) == {}


@NEEDS_COMPILER
def test_native_code_that_wants_a_program_is_grave_and_one_that_asks_is_not() -> None:
    made = build(RUNS_GIT, base=HOSTED)
    asks = '[[exec]]\ncommand = "git"\n'

    found = found_in(library(made))

    assert (found["dryrun.undeclared"].place, found["dryrun.undeclared"].severity) == (
        "dry run:exec",
        Severity.HIGH,
    )
    assert "git" in found["dryrun.undeclared"].evidence
    assert found_in(library(made, asks)) == {}


@NEEDS_COMPILER
def test_native_code_that_wants_a_store_is_found() -> None:
    made = build(USES_KV, base=HOSTED)

    assert found_in(library(made))["dryrun.undeclared"].place == "dry run:kv"
    assert found_in(library(made, '[kv]\nquota = "1MiB"\n')) == {}


@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("rule", "body", "severity", "evidence"),
    [
        ("dryrun.sandbox", "syscall(101, 0, 0, 0, 0)", Severity.HIGH, "SIGSYS"),
        ("dryrun.crash", "*(volatile int *)0", Severity.NOTE, "SIGSEGV"),
    ],
)
def test_how_native_code_ends_is_found(
    rule: str, body: str, severity: Severity, evidence: str
) -> None:
    found = found_in(library(build(body, before="#include <unistd.h>")))

    assert set(found) == {rule}
    assert found[rule].severity is severity
    assert evidence in found[rule].evidence


@NEEDS_COMPILER
@pytest.mark.case("NAT-20")
def test_an_attack_before_any_call_is_found() -> None:
    early = "#include <unistd.h>\n__attribute__((constructor)) static void e(void) { syscall(165, 0, 0, 0, 0, 0); }"

    assert "dryrun.sandbox" in found_in(library(build(before=early)))


@NEEDS_COMPILER
def test_a_plugin_that_does_not_start_is_found() -> None:
    refusing = PLUGIN.replace("? &me : NULL", "? NULL : NULL")

    assert set(found_in(library(build(base=refusing)))) == {"dryrun.start"}


def test_a_loop_without_end_is_ended_and_found(spinning: bytes) -> None:
    assert set(found_in(code(spinning))) == {"dryrun.limit"}


@NEEDS_COMPILER
def test_a_clean_plugin_gives_nothing() -> None:
    assert found_in(library(build())) == {}


def test_what_no_permission_gives_is_found() -> None:
    what = code(guest("slugs"))
    assert what.manifest is not None
    seen = dryrun._Seen(Learner(what.capabilities, what.manifest))
    seen.learner.record(
        Event(
            kind="wasi", verdict=DENIED, action="wasi:sockets/tcp.[method]tcp-socket.accept",
            reason="not-supported", details={"table": ""},
        )
    )  # fmt: skip

    found = {f.rule: f for f in dryrun._findings(seen, what.manifest)}

    assert set(found) == {"dryrun.ungrantable"}
    assert "accept" in found["dryrun.ungrantable"].evidence


# -- not run ------------------------------------------------------------------------------------


def test_nothing_runs_unless_the_policy_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "open", lambda *_a, **_k: pytest.fail("it was run"))

    made = report(dryrun.SCANNERS, code(guest("slugs")), wanting(dry=False))

    assert "nobody wants a dry run" in made.scanners[0].skipped


def test_the_command_runs_it_if_that_is_asked(tmp_path: Path) -> None:
    what = tmp_path / "slugs.capsule"
    what.write_bytes(pack({"plugin.toml": manifest(), "plugin.wasm": guest("slugs")}))
    words = ["scan", str(what), "--home", str(tmp_path / "home"), "--json", "--fail-on", "never"]

    quiet = CliRunner().invoke(capwasm, words)
    ran = CliRunner().invoke(capwasm, [*words, "--dry-run"])

    assert "dryrun.undeclared" not in quiet.stdout
    assert "dryrun.undeclared" in ran.stdout or "can't confine" in ran.stdout


def test_where_the_machine_cannot_confine_it_is_skipped_with_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object, **_words: object) -> None:
        raise ShimError("the layer landlock can't be had", code="shim.layer")

    monkeypatch.setattr(Runtime, "load_legacy", refuse)

    made = report(dryrun.SCANNERS, code(guest("slugs")), wanting())

    assert "can't confine it: the layer landlock" in made.scanners[0].skipped
    assert [f.rule for f in made.findings] == ["scan.skipped"]


def test_code_for_another_machine_and_no_manifest_are_skipped_with_why() -> None:
    other = subject(
        {"plugin.toml": manifest("native"), "lib/riscv64-linux-gnu/plugin.so": b"\x7fELF"}
    )
    bare = subject(
        {"plugin.toml": manifest(more="[surprise]\nx = 1\n"), "plugin.wasm": guest("slugs")}
    )

    for what, why in ((other, "no code for this machine"), (bare, "manifest can't be read")):
        assert why in report(dryrun.SCANNERS, what, wanting()).scanners[0].skipped


def test_what_is_no_code_is_skipped_with_why() -> None:
    made = report(dryrun.SCANNERS, code(guest("slugs")[:500]), wanting())

    assert "can't be run here: [artifact." in made.scanners[0].skipped


# -- empty values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (t.Prim("u8"), 0), (t.Prim("f64"), 0.0), (t.Prim("bool"), False), (t.Prim("string"), ""),
        (t.Prim("char"), "a"), (t.List(t.Prim("u8")), b""), (t.List(t.Prim("u16")), []),
        (t.Option(t.Prim("u8")), None), (t.Enum("e", ("a", "b")), "a"),
    ],
)  # fmt: skip
def test_a_sample_is_the_emptiest_value(type_: t.ValType, value: object) -> None:
    assert sample(type_) == (value,)


def test_samples_of_what_has_parts_have_those() -> None:
    record = t.Record("r", (("a-b", t.Prim("u8")), ("c", t.Tuple((t.Prim("bool"),)))))
    variant = t.Variant("v", (("one", t.Prim("string")), ("none", None)))

    for type_ in (record, variant, t.Result(None, t.Prim("u8")), t.Flags("f", ("a",))):
        assert sample(type_) is not None
    assert sample(t.List(t.Own(t.ResourceId("i", "r", imported=False)))) == ([],)
    assert sample(t.Own(t.ResourceId("i", "r", imported=False))) is None
