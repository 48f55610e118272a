"""`capwasm doctor`: what this machine enforces, and what is known of what it runs on."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import console, epilog, home_option, json_option, say_json, shown
from ._toolchains import show_toolchains, toolchains

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from capwasm.engine.advisories import Finding
    from capwasm.machine import Check, Status

__all__ = ["commands"]

# Those of `capwasm.authoring.builders`, which is not imported for `--help`.
LANGUAGES: Final = ("python", "js", "rust", "go", "c")
COLOURS: Final = {
    "ok": "green",
    "note": "yellow",
    "lacks": "yellow",
    "MISSING": "bold red",
    "shielded": "green",
    "REACHABLE": "bold red",
    "unknown": "yellow",
}


@click.command(
    epilog=epilog(
        "capwasm doctor",
        "capwasm doctor --lang rust",
        "capwasm doctor --json | jq .advisories",
        codes="0 all that is required is there and no known advisory is in a guest's reach,"
        " 1 something is missing or reachable, 2 wrong usage",
    )
)
@home_option
@json_option
@click.option(
    "--lang",
    "languages",
    type=click.Choice(LANGUAGES),
    multiple=True,
    help="Tell only what builds plugins in that language; may be given again.",
)
def doctor(home_path: Path, as_json: bool, languages: tuple[str, ...]) -> None:
    """Show what this machine enforces, and which known advisories can matter here.

    Of the runtime's directory, if there is one: whether its revocation feed is new enough, whether
    its policy has an owner and is due to be looked at again, and whether the layers can be had that
    it wants around plugins in processes of their own.

    Also which languages plugins can be built in here, and the command for each tool that is missing;
    that one is missing is no failure.
    """
    if languages:
        found = toolchains(languages)
        say_json({"toolchains": found}, indent=2) if as_json else show_toolchains(found)
        return
    from capwasm.engine.advisories import REVIEWED, findings, python_findings, unlisted
    from capwasm.machine import check_machine

    checks, engine, python = check_machine(), findings(), python_findings()
    checks = [
        *_required_layers(checks, home_path),
        *_revocations(home_path),
        *_governance(home_path),
    ]
    ok = not any(c.failed for c in checks) and not any(f.reachable for f in (*engine, *python))
    if as_json:
        say_json(
            {
                "ok": ok,
                "checks": [asdict(check) for check in checks],
                "advisories": [_data(finding) for finding in engine],
                "advisories-not-listed": unlisted(),
                "python-advisories": [_data(finding) for finding in python],
                "reviewed": REVIEWED,
                "toolchains": toolchains(),
            },
            indent=2,
        )
    else:
        _show(checks, engine, python, unlisted(), REVIEWED, ok=ok)
    raise click.exceptions.Exit(0 if ok else 1)


def _required_layers(checks: Sequence[Check], home_path: Path) -> list[Check]:
    """The checks, in which a layer is required if a plugin of that home would not start without it.

    Where the policy has nothing run in a process of its own, none is.
    """
    from capwasm.errors import CapwasmError
    from capwasm.home import Home

    from ._plugin import capabilities

    if not home_path.is_dir():
        return list(checks)
    try:
        isolation = Home(home_path).policy(capabilities()).isolation
    except CapwasmError:
        return list(checks)  # `_revocations` tells of it
    rule = isolation.rule
    if not (rule.process or rule.native or rule.legacy):
        return list(checks)
    return [
        replace(c, required=True, status="ok" if c.status == "ok" else "lacks")
        if c.name in isolation.required
        else c
        for c in checks
    ]


def _revocations(home_path: Path) -> list[Check]:
    """What is known of revocations in that home; nothing where there is none."""
    from capwasm.errors import CapwasmError
    from capwasm.events import NullRecorder
    from capwasm.home import Home
    from capwasm.machine import Check

    from ._plugin import capabilities

    if not home_path.is_dir():
        return []
    why = "what may no longer run is known"
    home, known = Home(home_path), capabilities()
    try:
        policy, trust = home.policy(known), home.trust()
    except CapwasmError as exc:
        return [Check("revocations", "lacks", exc.message, why)]
    status = home.guard(NullRecorder(), trust=trust, policy=policy, capabilities=known).status()
    problem = None if status.problem is None else status.problem.message
    wrong = problem or status.stale or status.clock
    if wrong is None and status.feed is not None:
        value = f"feed {status.feed.sequence}, issued {status.feed.issued:%Y-%m-%d %H:%M} UTC"
        return [Check("revocations", "ok", value, why)]
    refuses = problem is not None or (status.refuses and status.stale is not None)
    value = f"{wrong}; loads are refused" if refuses else str(wrong)
    return [Check("revocations", "lacks" if refuses else "note", value, why, required=refuses)]


def _governance(home_path: Path) -> list[Check]:
    """Who answers for that home's policy, and whether it is due; nothing where there is none."""
    from datetime import UTC, datetime

    from capwasm.errors import CapwasmError
    from capwasm.home import Home
    from capwasm.machine import Check

    from ._plugin import capabilities

    try:
        policy = Home(home_path).policy(capabilities())
    except CapwasmError:
        return []  # `_revocations` tells of it
    found = policy.governance(datetime.now(UTC).date())
    if not found.written:
        return []
    why = "somebody answers for the policy, and looks at it again in time"
    status: Status = "lacks" if found.refuses else "note" if found.remarks() else "ok"
    told = [remark.message for remark in found.remarks()]
    value = "; ".join(told) or f"{found.owner}, to be looked at again by {found.review_by}"
    return [Check("policy-review", status, value, why, required=found.refuses)]


def _data(finding: Finding) -> dict[str, Any]:
    advisory = finding.advisory
    return {
        "name": advisory.name,
        "what": advisory.what,
        "fixed": [".".join(map(str, release)) for release in advisory.fixed],
        "reachable": finding.reachable,
        "because": finding.because,
    }


def _show(
    checks: list[Check],
    engine: list[Finding],
    python: list[Finding],
    unknown: int,
    reviewed: str,
    *,
    ok: bool,
) -> None:
    from rich.text import Text

    from capwasm_shim.layers import Layer

    out = console(columns=100)
    out.print(Text("What this machine enforces", "bold"))
    layers = {layer.value for layer in Layer}
    plain = [c for c in checks if c.name not in layers]
    out.print(_grid((_word(c), c.name, c.value, c.why) for c in plain))
    out.print(Text("\nLayers around a plugin in a process of its own, and what each stops", "bold"))
    out.print(_grid(_layer_row(c) for c in checks if c.name in layers))
    out.print(Text(f"\nAdvisories of the installed engine, as known on {reviewed}", "bold"))
    rows = [_row(finding) for finding in engine]
    if unknown:
        rows.append(
            ("unknown", f"{unknown} more", "fixed in newer releases, not described here", "")
        )
    out.print(_grid(rows))
    out.print(Text("\nAdvisories of this Python that lie on a guest's way", "bold"))
    out.print(_grid(_row(finding) for finding in python))
    out.print()
    show_toolchains(toolchains())
    if ok:
        out.print(Text("\nNothing that is required is missing.", "bold green"))
    else:
        text = "\nSomething that is required is missing, or reachable: see above."
        out.print(Text(text, "bold red"))


def _word(check: Check) -> str:
    return "MISSING" if check.failed else check.status


def _layer_row(check: Check) -> tuple[str, str, str, str]:
    """What it stops, and, if it can't be had, why not, and what comes of that."""
    stops = check.why.rpartition(" against ")[2] or check.why
    if check.status == "ok":
        return "ok", check.name, stops, ""
    comes = (
        "what must have it does not start" if check.status == "lacks" else "others stand in for it"
    )
    return _word(check), check.name, stops, f"{check.value}; {comes}"


def _row(finding: Finding) -> tuple[str, str, str, str]:
    advisory = finding.advisory
    fixed = ", ".join(".".join(map(str, release)) for release in advisory.fixed)
    what = f"{advisory.what} ({f'fixed in {fixed}' if fixed else 'no fixed release is known'})"
    return "REACHABLE" if finding.reachable else "shielded", advisory.name, what, finding.because


def _grid(rows: Iterable[tuple[str, str, str, str]]) -> RenderableType:
    """One row each: a word in its colour, a name, what it is, and why."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=9)
    grid.add_column(width=19)
    grid.add_column()
    for word, name, what, why in rows:
        text = Text.assemble(shown(what), (f"\n{shown(why)}" if why else "", "dim"))
        grid.add_row(Text(word, COLOURS[word]), Text(shown(name), "bold"), text)
    return grid if grid.row_count else Text("none", "green")


commands: list[click.Command] = [doctor]
