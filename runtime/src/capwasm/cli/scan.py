"""`capwasm scan`: what scanners find in a capsule, before anybody has it serve.

Exit codes: 0 nothing so grave as `--fail-on` was found, 1 something was, or it can't be scanned,
2 wrong usage.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from capwasm.errors import ArtifactError, VerificationError

from ._output import colour, epilog, home_option, json_option, say_json
from ._source import is_id

if TYPE_CHECKING:
    from capwasm.grants.policy import Policy
    from capwasm.home import Home
    from capwasm.registry.registry import Registry
    from capwasm.review.finding import Report
    from capwasm.scan.model import Context
    from capwasm.scan.subject import Subject

__all__ = ["commands"]

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_NEVER: Final = "never"


@click.command(
    epilog=epilog(
        "capwasm scan acme.weather-1.2.0.capsule",
        "capwasm scan acme.weather@1.2.0 --sarif weather.sarif",
        "capwasm scan acme.weather-1.2.0.capsule --fail-on medium --known-bad bad.txt --json",
        codes="0 nothing so grave as --fail-on was found, 1 something was, or it can't be scanned, "
        "2 wrong usage",
    )
)
@click.argument("source")
@click.option(
    "--sarif", "sarif_file", type=_FILE, help="Write the report there too, as SARIF 2.1.0."
)
@click.option(
    "--fail-on",
    type=click.Choice(["note", "low", "medium", "high", "critical", _NEVER]),
    default="high",
    show_default=True,
    help="The severity from which on the exit code is 1.",
)
@click.option(
    "--known-bad",
    type=_FILE,
    multiple=True,
    help="A file of SHA-256 digests, a line each, besides the policy's; may be given again.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Run it as well, in a sandbox and with nothing granted, to see what it tries.",
)
@click.option(
    "--offline", is_flag=True, help="No scanner may ask a network; capwasm's own never do."
)
@home_option
@json_option
def scan(
    source: str,
    sarif_file: Path | None,
    fail_on: str,
    known_bad: tuple[Path, ...],
    dry_run: bool,
    offline: bool,
    home_path: Path,
    as_json: bool,
) -> None:
    """Tell what scanners find in SOURCE, the gravest first.

    SOURCE is the file of a capsule, which no key need have signed, or the ID[@VERSION] of an
    installed or submitted plugin; then the report is kept with it, for those who review.  Nothing of
    the plugin gets any power by this; of it nothing runs, unless there is to be a dry run.
    """
    from capwasm.home import Home
    from capwasm.review.finding import Severity
    from capwasm.scan.scanners import catalogue, chosen_scanners

    from ._plugin import capabilities

    home = Home(home_path)
    policy = home.policy(capabilities())
    scanners = chosen_scanners(policy.scan.scanners)
    rule = policy.scan.model_copy(update={"dry_run": True}) if dry_run else policy.scan
    words = {"rule": rule, "known_bad": known_bad, "offline": offline}
    made = (
        _of_id(source, home, policy, scanners, words)
        if is_id(source.partition("@")[0])
        else _of_file(Path(source), home, policy, scanners, words)
    )
    if sarif_file is not None:
        from capwasm._files import write_file
        from capwasm.scan.sarif import sarif

        text = json.dumps(sarif(made, catalogue(scanners)), indent=2).encode()
        write_file(sarif_file, text, ArtifactError, code="artifact.unreadable")
    _say(made, as_json=as_json)
    grave = fail_on != _NEVER and bool(made.at_least(Severity(fail_on)))
    raise click.exceptions.Exit(int(grave))


def _of_file(
    path: Path, home: Home, policy: Policy, scanners: Any, words: dict[str, Any]
) -> Report:
    """Of a file: nothing is made or changed anywhere."""
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.verify import verify
    from capwasm.events import NullRecorder
    from capwasm.scan.subject import Subject

    from ._plugin import capabilities

    known, trust = capabilities(), home.trust()
    artifact = read_artifact(path, beside=True)
    try:
        proven = verify(artifact, trust, requirement=policy.requirement)
        subject = Subject.of(proven, known, artifact.sha256)
    except VerificationError as exc:
        subject = Subject.unproven(artifact, known, f"[{exc.code}] {exc.message}")
    with home.registry(NullRecorder(), trust=trust, policy=policy, capabilities=known) as registry:
        return _look(subject, _context(subject, home, policy, registry, words), scanners)


def _of_id(text: str, home: Home, policy: Policy, scanners: Any, words: dict[str, Any]) -> Report:
    """Of an installed plugin: the report is kept."""
    from capwasm.registry.desk import Desk
    from capwasm.scan.subject import Subject

    from ._plugin import capabilities
    from .registry import opened

    plugin_id, _, version = text.partition("@")
    with opened(home.root) as registry:
        desk = Desk(registry)
        record = desk.case(plugin_id, version or None).record
        proven = registry.again(plugin_id, record.version).artifact
        subject = Subject.of(proven, capabilities(), record.bundle)
        words |= {"published": record.published}
        report = _look(subject, _context(subject, home, policy, registry, words), scanners)
        desk.scanned(plugin_id, record.version, report)
        return report


def _context(
    subject: Subject, home: Home, policy: Policy, registry: Registry, words: dict[str, Any]
) -> Context:
    from capwasm.scan.given import context_of

    from ._plugin import capabilities

    plugins = [registry.show(p.id) for p in registry.list()]
    mine = {s.key_id for s in subject.verified.signers} if subject.verified else set()
    others = {
        s.key_id
        for plugin in plugins
        for version in plugin.versions
        if (plugin.id, version.version) != (subject.identity.id, subject.identity.version)
        for s in version.signers
    }
    return context_of(
        root=home.root,
        ids=[p.id for p in plugins],
        capabilities=capabilities(),
        known_publisher=bool(mine & others),
        revoked=_revoked(home, policy),
        **words,
    )


def _revoked(home: Home, policy: Policy) -> Any:
    """Says why the revocation feed denies a plugin, or nothing."""
    from capwasm.events import NullRecorder
    from capwasm.revocation.index import Subject as Asked

    from ._plugin import capabilities

    guard = home.guard(
        NullRecorder(), trust=home.trust(), policy=policy, capabilities=capabilities()
    )

    def ask(subject: Subject) -> str:
        signers = subject.verified.signers if subject.verified else ()
        asked = Asked(
            subject.identity.id,
            subject.identity.version,
            frozenset([subject.digest, *subject.digests.values()]),
            frozenset(s.key_id for s in signers),
        )
        try:
            guard.admit(asked)
        except VerificationError as exc:
            return exc.message
        return ""

    return ask


def _look(subject: Subject, context: Context, scanners: Any) -> Report:
    from capwasm.scan.run import scan as run

    with _progress() as tell:
        return run(subject, context, scanners, tell)


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Tells on a terminal which scanner works, once one takes a while."""
    width = 0

    def tell(name: str, seconds: float) -> None:
        nonlocal width
        if sys.stderr.isatty() and (seconds > 0.3 or width):
            line = f"scanning: {name} {seconds:.1f} s"
            click.echo(f"\r{line:<{width}}", nl=False, err=True)
            width = max(width, len(line))

    try:
        yield tell
    finally:
        if width:
            click.echo("\r" + " " * width + "\r", nl=False, err=True)


def _say(report: Report, *, as_json: bool) -> None:
    from ._scan_text import report_lines

    if as_json:
        say_json(json.loads(report.to_json()), indent=2)
        return
    for line in report_lines(report):
        click.echo(line, color=colour())


commands: list[click.Command] = [scan]
