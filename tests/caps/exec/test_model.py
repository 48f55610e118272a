"""The words of `[[exec]]` on each side, and what they come to."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from capwasm.capability import Risk
from capwasm.caps.exec import Exec, ExecClause
from capwasm.caps.exec.model import Quantities
from capwasm.grants.manifest import parse_manifest
from capwasm.grants.policy import Policy
from tests.toycaps import manifest_text

WHOLE = {
    "command": "thumbnail",
    "program": "/usr/bin/convert",
    "arguments": ["-resize", "{size:[0-9]{1,4}x[0-9]{1,4}}", "-", "png:-"],
    "reads": ["/usr/share/fonts"],
    "timeout-ms": 3000,
    "memory": "512MiB",
    "processes": 4,
    "threads": 8,
    "input-bytes": "2MiB",
    "output-bytes": "3MiB",
    "runs": 5,
}
PARSED = ExecClause(
    "thumbnail",
    "/usr/bin/convert",
    (("-resize", "{size:[0-9]{1,4}x[0-9]{1,4}}", "-", "png:-"),),
    frozenset({"/usr/share/fonts"}),
    3000,
    512 * 2**20,
    4,
    8,
    2 * 2**20,
    3 * 2**20,
    5,
)


def parse(table: dict[str, Any], side: Any = "policy") -> Any:
    return Exec().parse([table], side)


def test_allows_a_manifest_to_name_a_command_and_a_policy_to_say_what_it_is() -> None:
    assert parse({"command": "thumbnail"}, "manifest").clauses == (ExecClause("thumbnail"),)
    assert parse(WHOLE).clauses == (PARSED,)
    assert parse(WHOLE, "consent").clauses == (PARSED,)


@pytest.mark.parametrize("word", [word for word in WHOLE if word != "command"])
def test_refuses_a_manifest_that_says_more_than_a_name(word: str) -> None:
    parsed = parse({"command": "thumbnail", word: WHOLE[word]}, "manifest")

    assert not parsed.clauses
    assert f"unknown word '{word}'" in parsed.faults[0].message


def test_allows_one_pattern_or_several() -> None:
    several = parse({"command": "c", "arguments": [["-a"], ["-b", "{x:y}"]]}).clauses[0]

    assert several.arguments == (("-a",), ("-b", "{x:y}"))
    assert several.fill([]) == ("-a",)
    assert several.fill(["y"]) == ("-b", "y")
    assert several.fill(["z"]) is None
    assert parse({"command": "c", "arguments": [[]]}).clauses[0].arguments == ((),)


def test_refuses_arguments_and_files_that_a_policy_does_not_name() -> None:
    [clause] = parse({"command": "c", "program": "/bin/c"}).clauses

    assert (clause.arguments, clause.reads) == (((),), frozenset())
    assert clause.fill([]) == ()
    assert clause.fill(["x"]) is None
    assert ExecClause("c", "/bin/c").fill(["x"]) is None  # left open by every side: none


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *[("command", v) for v in ("", "A", "a b", "a/b", "-a", "a_b", "a" * 65, "é", 1)],
        *[("program", v) for v in ("", "convert", "./x", "/", "/usr/../bin/x", "/a//b", "/proc/1/exe")],
        *[("program", v) for v in ("/usr/bin/", "/a\tb", "/dev/x", ["/bin/x"])],
        *[("reads", v) for v in (["etc"], ["/"], ["/proc"], ["/a/.."], "/etc", ["/a", "x"])],
        *[("arguments", v) for v in ("-x", [1], ["{x}"], [["{x}"]], ["a", ["b"]], [["a"]] * 17)],
        *[("timeout-ms", v) for v in (0, -1, 600_001, "1s", True)],
        *[("memory", v) for v in (0, "15MiB", "65GiB")],
        *[(w, v) for w in ("processes", "threads") for v in (0, 1025)],
        *[(w, v) for w in ("input-bytes", "output-bytes") for v in (-1, "65MiB", 1.5)],
        *[("runs", v) for v in (0, 1_000_001)],
        ("argv", ["x"]),
        ("shell", True),
        ("env", {"A": "b"}),
    ],
)  # fmt: skip
def test_refuses_a_word_out_of_form(word: str, value: object) -> None:
    for side in ("policy", "consent"):
        parsed = parse({"command": "thumbnail", word: value}, side)

        assert not parsed.clauses
        assert parsed.faults


def test_refuses_a_rule_about_nothing() -> None:
    assert "command or program" in parse({"runs": 1}).faults[0].message
    assert parse({"program": "/bin/sh"}).clauses


def test_allows_the_less_of_each_quantity() -> None:
    policy = ExecClause(
        "c", "/bin/c", ((),), frozenset({"/a", "/b"}), 5000, None, 4, 9, None, 10, None
    )
    other = ExecClause("c", None, None, frozenset({"/b", "/x"}), 100, 2**30, None, 8, 7, 20, 3)
    met = policy.meet(other)

    assert met == ExecClause("c", "/bin/c", ((),), frozenset({"/b"}), 100, 2**30, 4, 8, 7, 10, 3)
    assert met.in_force == (100, 2**30, 4, 8, 7, 10, 3)
    assert ExecClause("c").in_force == Quantities()


@pytest.mark.parametrize(
    "other",
    [
        ExecClause("d", "/bin/c", (("x",),)),
        ExecClause("c", "/bin/d", (("x",),)),
        ExecClause("c", "/bin/c", ((),)),
        ExecClause("c", "/bin/c", (("x",), ("y",))),
    ],
)
def test_refuses_a_meeting_of_two_commands(other: ExecClause) -> None:
    assert ExecClause("c", "/bin/c", (("x",),)).meet(other) is None
    assert ExecClause("c", "/bin/c", (("x",),)).meet(ExecClause("c")) is not None


def test_denies_a_command_or_a_program_whatever_else_a_rule_says() -> None:
    clause = ExecClause("c", "/bin/c", (("x",),), frozenset(), 5)

    for rule in (
        ExecClause("c"),
        ExecClause(None, "/bin/c"),
        ExecClause("c", "/bin/c", ((),), frozenset({"/z"}), 1, runs=1),
    ):
        assert clause.denied_by(rule)
    for rule in (ExecClause("d"), ExecClause(None, "/bin/d"), ExecClause("c", "/bin/d")):
        assert not clause.denied_by(rule)


def test_tells_a_person_what_will_run() -> None:
    assert PARSED.describe() == (
        "run the command thumbnail: /usr/bin/convert -resize {size:[0-9]{1,4}x[0-9]{1,4}} - png:-"
        " (reads /usr/share/fonts)"
    )
    assert ExecClause("c").describe() == "run the command c"
    assert ExecClause("c", "/bin/c", ((), ("a b", ""))).describe() == (
        'run the command c: /bin/c (alone) or "a b" ""'
    )


@pytest.mark.parametrize("clause", [ExecClause("c"), PARSED, ExecClause(None, "/bin/sh")])
def test_a_person_decides_always(clause: ExecClause) -> None:
    assert Exec().risk(clause)[0] is Risk.HIGH


def test_the_examples_of_the_page_are_sound() -> None:
    page = (Path(__file__).parents[3] / "docs/exec.md").read_text(encoding="utf-8")
    manifest, policy = re.findall(r"(?:^    [\[a-z].*\n)+", page, re.MULTILINE)[:2]

    asked = parse_manifest(manifest_text(textwrap.dedent(manifest)), [Exec()])
    rules = Policy.load(f"schema = 1\n{textwrap.dedent(policy)}".encode(), [Exec()])
    [clause] = asked.requests["exec"].clauses.meet(rules.for_plugin("acme.gallery").allowed("exec"))
    assert clause.fill(["100x100"]) == ("-resize", "100x100", "-", "png:-")


def test_a_fix_names_a_program_only_where_the_manifest_could_not() -> None:
    assert Exec().policy_table(ExecClause("c")) == {
        "command": "c",
        "program": "/the/program/of/c",
        "arguments": [],
    }
    assert Exec().policy_table(PARSED) == PARSED.to_toml()
