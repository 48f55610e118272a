"""`capwasm diff`: what differs between two versions of a plugin, by all that can be proven."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import colour, epilog, home_option, json_option, say_json, shown

if TYPE_CHECKING:
    from capwasm.registry.changes import Changes, Moved, Permission, Surface
    from capwasm.registry.model import Candidate, Decision
    from capwasm.registry.registry import Registry

__all__ = ["commands"]

_RISKS: Final = {"high": "red", "medium": "yellow", "low": None}
_WORDS: Final = {"accept": "accepted", "pending": "waits for a person", "refuse": "refused"}


@click.command(
    epilog=epilog(
        "capwasm diff acme.weather",
        "capwasm diff acme.weather@1.2.0 acme.weather@1.3.0",
        "capwasm diff old.capsule new.capsule --json",
        codes="0 shown, 1 one is unknown or does not verify, 2 wrong usage",
    )
)
@click.argument("old", metavar="ID|OLD")
@click.argument("new", required=False)
@click.option(
    "--no-imports", is_flag=True, help="Do not ask the engine, which has to compile both."
)
@home_option
@json_option
def diff(old: str, new: str | None, no_imports: bool, home_path: Path, as_json: bool) -> None:
    """Show what differs: permissions, limits, signers, real imports and exports, risk, size.

    OLD and NEW are files, or ID@VERSION of what is installed or offered; with ID alone, the version
    that serves and the one that waits.  Both are verified as for a load.
    """
    from capwasm.events import NullRecorder
    from capwasm.home import Home
    from capwasm.registry.changes import compare

    from ._plugin import capabilities

    home, known = Home(home_path), capabilities()
    policy, trust = home.policy(known), home.trust()
    with home.registry(NullRecorder(), trust=trust, policy=policy, capabilities=known) as registry:
        before, after = _both(registry, home, old, new)
        if before.record.plugin != after.record.plugin:
            raise click.UsageError(
                f"two plugins, not two versions of one: {before.record.plugin} and"
                f" {after.record.plugin}"
            )
        surfaces = None
        if not no_imports and {before.record.kind, after.record.kind} == {"component"}:
            surfaces = _surfaces(home, before, after)
        changes = compare(
            (before.manifest, before.record), (after.manifest, after.record), known, surfaces
        )
        decision = None
        plugin = registry.find(after.record.plugin)
        if plugin is not None and plugin.serving == before.record.version:
            decision = registry.weigh(after)
    if as_json:
        say_json(_as_data(before, after, changes, decision), indent=2)
    else:
        _show(before, after, changes, decision)


def _both(registry: Registry, home: Any, old: str, new: str | None) -> tuple[Candidate, Candidate]:
    from capwasm.errors import RegistryError

    if new is not None:
        return _side(registry, home, old), _side(registry, home, new)
    plugin = registry.show(old)
    if plugin.serving is None or plugin.waiting is None:
        raise RegistryError(
            "there is not one version that serves and one that waits; name two versions",
            code="registry.unknown",
            context=ascii(old)[1:-1],
        )
    return registry.again(old, plugin.serving), registry.again(old, plugin.waiting)


def _side(registry: Registry, home: Any, text: str) -> Candidate:
    """What is named: installed, or else a file or what a repository offers."""
    from ._source import bundle_of, is_id

    plugin_id, at, version = text.partition("@")
    if at and is_id(plugin_id):
        plugin = registry.find(plugin_id)
        if plugin is not None and plugin.version(version) is not None:
            return registry.again(plugin_id, version)
    return registry.examine(bundle_of(text, home).capsule)


def _surfaces(home: Any, *sides: Candidate) -> tuple[Surface, Surface]:
    """What each component imports and exports, by the engine's word; nothing is run."""
    from capwasm.engine.compile import Compiler
    from capwasm.engine.engine import PluginEngine
    from capwasm.engine.link import read_types
    from capwasm.registry.changes import Surface

    from ._progress import CompileLine

    engine = PluginEngine()
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        compiler = Compiler(engine, home.cache, on_compile=CompileLine())
        found = []
        for side in sides:
            types, _ = read_types(
                engine, compiler.compile(side.artifact.code, sha256=side.artifact.code_digest)
            )
            found.append(
                Surface(
                    frozenset(_names(types.imports)),
                    frozenset(_names(types.exports)),
                )
            )
    return found[0], found[1]


def _names(interfaces: Any) -> list[str]:
    """The interfaces, and the functions of the top level."""
    names = []
    for interface in interfaces:
        if interface.name:
            names.append(interface.name)
        else:
            names += [name for name, _ in interface.functions]
    return names


# -- telling -------------------------------------------------------------------------------------------


def _show(before: Candidate, after: Candidate, changes: Changes, decision: Decision | None) -> None:
    names = {s.key_id: s.name for c in (before, after) for s in c.record.signers}
    versions = f"{before.record.version} → {after.record.version}"
    click.echo(f"{click.style(after.record.plugin, bold=True)}  {versions}", color=colour())
    with _section("permissions") as tell:
        for word in ("new", "widened", "narrowed", "gone"):
            for permission in getattr(changes, word):
                _say_permission(tell, word, permission)
    with _section("limits") as tell:
        for limit, then, now in (*changes.raised, *changes.lowered):
            tell(f"{limit:<16} {then:,} → {now:,}")
    with _section("signers") as tell:
        _say_moved(tell, changes.signers, names)
    with _section("imports") as tell:
        _say_moved(tell, changes.imports, {})
    with _section("exports") as tell:
        _say_moved(tell, changes.exports, {})
    with _section("manifest") as tell:
        for fact, was, is_ in changes.facts:
            tell(f"{fact:<16} {shown(was or '-')} → {shown(is_ or '-')}")
    with _section("size") as tell:
        tell(f"{changes.size[0]:,} → {changes.size[1]:,} bytes")
    with _section("risk") as tell:
        was, is_ = (r.value if r else "none" for r in changes.risk)
        tell(click.style(is_ if was == is_ else f"{was} → {is_}", fg=_RISKS.get(is_)))
        for why in changes.risks:
            tell(f"  {shown(why)}")
    if decision is not None:
        with _section("as an update") as tell:
            tell(_WORDS[decision.verdict])
            for reason in decision.reasons:
                tell(f"  {shown(reason)}")
    if changes.imports is None:
        click.echo("\nThe engine was not asked what they import and export.")


Tell = Callable[[str], None]


@contextlib.contextmanager
def _section(title: str) -> Iterator[Tell]:
    """Takes lines, and prints them below a heading, if there are any."""
    lines: list[str] = []
    yield lambda text: lines.append(f"  {text}")
    if lines:
        head = click.style(title, bold=True)
        click.echo("\n".join(["", head, *lines]), color=colour())


def _say_permission(tell: Tell, word: str, permission: Permission) -> None:
    more = word in ("new", "widened")
    fg = _RISKS.get(permission.risk.value) if more else "green"
    sign = "+" if more else "-"
    tell(f"{click.style(f'{sign} {word:<9}', fg=fg)} {shown(permission)}")


def _say_moved(tell: Tell, moved: Moved | None, names: dict[str, str]) -> None:
    for sign, found in (("+", moved.added), ("-", moved.gone)) if moved else ():
        for name in found:
            known = f"{names[name]} " if name in names else ""
            tell(f"{sign} {shown(known + name)}")


def _as_data(
    before: Candidate, after: Candidate, changes: Changes, decision: Decision | None
) -> dict[str, Any]:
    def permissions(found: tuple[Permission, ...]) -> list[dict[str, str]]:
        return [
            {"capability": p.capability, "text": p.text, "risk": p.risk.value, "why": p.why}
            for p in found
        ]

    def limits(found: tuple[tuple[str, int, int], ...]) -> list[dict[str, Any]]:
        return [{"limit": word, "before": then, "after": now} for word, then, now in found]

    def moved(found: Moved | None) -> dict[str, list[str]] | None:
        return None if found is None else {"added": list(found.added), "gone": list(found.gone)}

    return {
        "plugin": after.record.plugin,
        "before": before.record.version,
        "after": after.record.version,
        "new": permissions(changes.new),
        "widened": permissions(changes.widened),
        "narrowed": permissions(changes.narrowed),
        "gone": permissions(changes.gone),
        "raised": limits(changes.raised),
        "lowered": limits(changes.lowered),
        "signers": moved(changes.signers),
        "imports": moved(changes.imports),
        "exports": moved(changes.exports),
        "manifest": [{"word": w, "before": b, "after": a} for w, b, a in changes.facts],
        "size": {"before": changes.size[0], "after": changes.size[1]},
        "risk": {
            "before": changes.risk[0] and changes.risk[0].value,
            "after": changes.risk[1] and changes.risk[1].value,
            "why": list(changes.risks),
        },
        "as-an-update": decision
        and {
            "verdict": decision.verdict,
            "code": decision.code or None,
            "reasons": list(decision.reasons),
        },
    }


commands: list[click.Command] = [diff]
