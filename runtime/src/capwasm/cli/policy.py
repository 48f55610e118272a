"""`capwasm policy check | lint | explain | test | doc | schema`."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

import click

from ._output import console, epilog, home_option, json_option, say_json, shown
from ._plugin import PATH, capabilities, home_options
from ._policy_text import outcomes_data, show_answer, show_findings, show_outcomes

__all__ = ["commands"]

_NEVER = "never"
_CODES = "0 it is sound, 1 it has faults, 2 wrong usage"


@click.group(
    epilog="\b\nExample:\n  capwasm policy check policy.toml\n  capwasm policy lint policy.toml\n"
    "  capwasm policy test cases.toml"
)
def policy() -> None:
    """Check, lint, test and publish a policy.toml, and print its JSON Schema."""


@policy.command("check", epilog=epilog("capwasm policy check policy.toml", codes=_CODES))
@click.argument("file", type=PATH, required=False)
@home_option
@json_option
def check_policy(file: Path | None, home_path: Path, as_json: bool) -> None:
    """Tell every fault of a policy.toml, and what its owner should know.

    Without FILE, it is the policy of the runtime's home.
    """
    from capwasm.grants.policy import Policy

    file = file or home_path / "policy.toml"
    known = capabilities()
    found = Policy.load(file, known)
    today = datetime.now(UTC).date()
    remarks = found.remarks(known, today)
    if as_json:
        say_json(
            {
                "policy": str(file),
                **found.governance(today).to_dict(),
                "require": sorted(found.requirement.any_of),
                "reviewed": found.requirement.reviewed,
                "automatic": sorted(found.automatic),
                "plugins": list(found.patterns),
                "isolation": {
                    "process": list(found.isolation.rule.process),
                    "native": list(found.isolation.rule.native),
                    "legacy": list(found.isolation.rule.legacy),
                    "required": sorted(found.isolation.required),
                },
                "digest": found.digest,
                "remarks": [{"path": r.path, "message": r.message} for r in remarks],
            },
            indent=2,
        )
        return
    out = console()
    out.print(f"{shown(file)}: sound, {len(found.patterns)} selector(s)", markup=False)
    for remark in remarks:
        out.print(f"  note: {shown(remark)}", markup=False)


@policy.command("schema", epilog=epilog("capwasm policy schema > policy.schema.json"))
def schema_of_policy() -> None:
    """Print the JSON Schema of policy.toml, for an editor."""
    from capwasm.grants.schema import policy_schema

    say_json(policy_schema(capabilities()), indent=2)


@policy.command(
    "lint",
    epilog=epilog(
        "capwasm policy lint policy.toml",
        "capwasm policy lint --fail-on medium --json",
        codes="0 nothing so grave was found, 1 something was, or it has faults, 2 wrong usage",
    ),
)
@click.argument("file", type=PATH, required=False)
@click.option(
    "--fail-on",
    type=click.Choice([_NEVER, "note", "low", "medium", "high"]),
    default="high",
    show_default=True,
    help="The severity from which on it exits with 1.",
)
@home_option
@json_option
def lint_policy(file: Path | None, fail_on: str, home_path: Path, as_json: bool) -> None:
    """Tell what is legal in a policy.toml and unwise, the gravest first.

    Without FILE, it is the policy of the runtime's home.  What is installed there is looked at, too,
    and how much memory this machine has.  The rules are in docs/governance.md.
    """
    from capwasm.governance.lint import lint
    from capwasm.grants.policy import Policy
    from capwasm.review.finding import Severity

    file = file or home_path / "policy.toml"
    known = capabilities()
    found = lint(
        Policy.load(file, known),
        known,
        today=datetime.now(UTC).date(),
        installed=_installed(home_path),
        memory=_memory(),
    )
    failed = fail_on != _NEVER and any(f.severity.rank >= Severity(fail_on).rank for f in found)
    if as_json:
        findings = [f.to_dict() for f in found]
        say_json({"policy": str(file), "ok": not failed, "findings": findings}, indent=2)
    else:
        show_findings(file, found)
    raise click.exceptions.Exit(1 if failed else 0)


def _installed(home_path: Path) -> frozenset[str] | None:
    """The ids of what is installed in that home; None where there is no registry."""
    from capwasm.registry.books import Books

    if not (home_path / "registry.db").is_file():
        return None
    with contextlib.closing(Books(home_path)) as books:
        return frozenset(p.id for p in books.list(removed=False))


def _memory() -> int | None:
    """The bytes of memory that this machine has, or None if that can't be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


@policy.command(
    "test",
    epilog=epilog(
        "capwasm policy test cases.toml --policy policy.toml",
        "capwasm policy test cases.toml --junit report.xml",
        codes="0 all cases came out as expected, 1 one did not, 2 wrong usage",
    ),
)
@click.argument("cases", type=PATH, metavar="CASES.TOML")
@click.option("--policy", "file", type=PATH, help="Instead of the one that CASES.TOML names.")
@click.option("--junit", type=PATH, help="Write the outcomes there too, as JUnit's XML.")
@home_option
@json_option
def run_cases(
    cases: Path, file: Path | None, junit: Path | None, home_path: Path, as_json: bool
) -> None:
    """Try cases on a policy: given this manifest, expect this grant.

    Every difference of every case is told.  Where neither --policy nor the file of cases names a
    policy, it is the one of the runtime's home.
    """
    from capwasm.governance.cases import load_cases
    from capwasm.governance.trial import junit as as_xml
    from capwasm.governance.trial import try_case
    from capwasm.grants.policy import Policy

    known, found = capabilities(), load_cases(cases)
    file = file or found.policy or home_path / "policy.toml"
    rules = Policy.load(file, known)
    outcomes = [try_case(case, rules, known, found.beside) for case in found.cases]
    if junit is not None:
        _write(junit, as_xml(outcomes, cases.name))
    if as_json:
        say_json(outcomes_data(file, outcomes), indent=2)
    else:
        show_outcomes(outcomes)
    raise click.exceptions.Exit(0 if all(o.passed for o in outcomes) else 1)


@policy.command(
    "explain",
    epilog=epilog(
        'capwasm policy explain acme.weather net "GET https://api.acme.com/v1/x"',
        "capwasm policy explain acme.weather secret 'reveal token' --policy policy.toml --json",
        codes="0 the policy leaves it to manifest and consent, 1 it refuses it, 2 wrong usage",
    ),
)
@click.argument("plugin_id")
@click.argument("capability")
@click.argument("operation")
@home_options("policy")
@json_option
def explain(
    plugin_id: str,
    capability: str,
    operation: str,
    policy: Path | None,
    home_path: Path,
    as_json: bool,
) -> None:
    """Tell what a policy says of one operation of a plugin, whatever its manifest asks.

    OPERATION is in the words of `policy test`; see docs/governance.md.
    """
    from capwasm.capsule.identity import check_id
    from capwasm.governance.cases import Operation
    from capwasm.governance.single import answer
    from capwasm.grants.policy import Policy

    rules = Policy.load(policy or home_path / "policy.toml", capabilities())
    try:
        check_id(plugin_id)
        found = answer(rules, capabilities(), plugin_id, Operation(capability, operation))
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    if as_json:
        say_json(
            {
                "allowed": found.allowed,
                "person": found.person,
                "allowed-by": [{"rule": r.path, "line": r.line} for r in found.allowed_by],
                "denied-by": [{"rule": r.path, "line": r.line} for r in found.denied_by],
            },
            indent=2,
        )
    else:
        show_answer(found)
    raise click.exceptions.Exit(0 if found.allowed else 1)


@policy.command(
    "doc",
    epilog=epilog(
        "capwasm policy doc policy.toml -o plugins.md",
        "capwasm policy doc --format html -o plugins.html",
        codes="0 done, 1 the policy has faults or the page can't be written, 2 wrong usage",
    ),
)
@click.argument("file", type=PATH, required=False, metavar="[POLICY]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "html"]),
    help="Markdown, or one file of HTML that loads nothing; by the end of FILE's name if left out.",
)
@click.option(
    "-o", "--output", type=PATH, metavar="FILE", help="Where to; the terminal if left out."
)
@click.option(
    "--internal", is_flag=True, help="Also what lies where on the host, and its networks."
)
@home_option
@json_option
def publish(
    file: Path | None,
    form: str | None,
    output: Path | None,
    internal: bool,
    home_path: Path,
    as_json: bool,
) -> None:
    """Write a page for developers: what plugins may do here, limits, and how to ask for more.

    Without POLICY, it is of the runtime's home.  Directories, programs and networks of the host are
    left out, unless --internal.  With --json and no FILE, the page comes as data.
    """
    from capwasm.governance.document import policy_page
    from capwasm.governance.pages import as_data, as_html, as_markdown
    from capwasm.grants.policy import Policy

    known = capabilities()
    rules = Policy.load(file or home_path / "policy.toml", known)
    page = policy_page(rules, known, internal=internal)
    if form is None:
        form = "html" if output is not None and output.suffix in (".html", ".htm") else "md"
    text = as_html(page) if form == "html" else as_markdown(page)
    if output is None:
        say_json(as_data(page), indent=2) if as_json else click.echo(text, nl=False)
        return
    _write(output, text)
    if as_json:
        say_json({"written": str(output), "format": form})
        return
    console().print(f"written: {shown(output)}", markup=False)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise click.FileError(shown(path), exc.strerror or str(exc)) from None


commands: list[click.Command] = [policy]
