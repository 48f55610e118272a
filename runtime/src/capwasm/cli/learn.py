"""`capwasm learn`: run a plugin where it can do no harm, and propose the manifest that it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import console, epilog, home_option, json_option, say_json, shown
from ._plugin import capabilities

if TYPE_CHECKING:
    from capwasm.capsule.artifact import Artifact
    from capwasm.engine.exports import Export
    from capwasm.learning import Learner, Proposal
    from capwasm.plugin import Plugin
    from capwasm.runtime import Runtime

__all__ = ["commands"]

_HANDLE: Final = "capwasm:plugin/handler"


@click.command(
    epilog=epilog(
        'capwasm learn notes.so --call save \'{"text": "hello"}\'',
        "capwasm learn weather.wasm --call forecast Oslo > plugin.toml",
        "capwasm learn acme.weather-1.2.0.capsule --call forecast Oslo --json",
        codes="0 a manifest was proposed, 1 refused, 2 wrong usage",
    )
)
@home_option
@json_option
@click.option("--core", help="The version of the core, for requires-core; capwasm's own if none.")
@click.option(
    "--call",
    "wanted",
    nargs=2,
    multiple=True,
    metavar="TOPIC MESSAGE",
    help="Call it, so that it shows what it wants; may be given again.",
)
@click.argument("file", type=click.Path(path_type=Path))
def learn(
    home_path: Path,
    as_json: bool,
    core: str | None,
    wanted: tuple[tuple[str, str], ...],
    file: Path,
) -> None:
    """Run FILE, keep what it is refused, and print the least plugin.toml that would ask for it.

    FILE is a component or a shared object without a manifest, which runs in strict mode: the policy
    must list its digest.  Or it is a capsule, which runs with what it is granted.

    Of a plugin that handles messages, TOPIC and MESSAGE are those of a message.  Of any other
    component, TOPIC is a function and MESSAGE its argument, or a JSON array of several.
    """
    from capwasm.capsule.artifact import read_artifact
    from capwasm.learning import Learner
    from capwasm.runtime import Runtime

    from .call import core_version

    artifact = read_artifact(file)
    known, version = capabilities(), core_version(core)
    learner = Learner(known)
    with Runtime.open(
        home_path,
        core_version=version,
        hook=learner.record,
        on_slow=lambda text: click.echo(text, err=True),
    ) as runtime:
        run = _Run(runtime, learner, file, artifact)
        run.load()
        for topic, message in wanted:
            run.call(topic, message)
    proposal = learner.propose(run.words or _words(file, run.kind, version))
    if as_json:
        say_json(run.to_dict() | proposal.to_dict(), indent=2)
    else:
        click.echo(proposal.text, nl=False)
        _summary(run, proposal)


class _Run:
    """One plugin as it runs, and what became of it."""

    def __init__(self, runtime: Runtime, learner: Learner, file: Path, artifact: Artifact) -> None:
        self.runtime, self.learner, self.file, self.artifact = runtime, learner, file, artifact
        self.kind = "component"
        self.words: Mapping[str, Any] | None = None
        self.strict = False
        self.calls: list[dict[str, str]] = []
        self.plugin: Plugin | None = None

    def load(self) -> None:
        """Load it; what its code does wrong is learned, and what nobody allows is refused.

        Raises:
            CapwasmError: as `Runtime.load` and `Runtime.load_legacy`.
        """
        from capwasm.capsule.container import MAGIC
        from capwasm.errors import GuestError, LinkError

        self.strict = not self.artifact.data.startswith(MAGIC)
        try:
            self.plugin = self._load_legacy() if self.strict else self._load_capsule()
        except LinkError as exc:
            self.learner.undeclared(exc.faults)
        except GuestError as exc:
            self.learner.note(f"its start failed: {exc.code} {exc.message}")
        else:
            self.learner.imports(self.plugin.imports)

    def _load_legacy(self) -> Plugin:
        from capwasm.capsule.legacy import recognise

        self.kind = recognise(self.artifact).kind
        return self.runtime.load_legacy(self.artifact.data)

    def _load_capsule(self) -> Plugin:
        from capwasm.grants.manifest import parse_manifest

        proven = self.runtime.verify(self.file)
        manifest = parse_manifest(proven.manifest_bytes, self.runtime.capabilities)
        self.learner.manifest = manifest
        self.words = manifest.plugin.model_dump(by_alias=True, exclude_defaults=True)
        return self.runtime.load(self.file)

    def call(self, topic: str, message: str) -> None:
        """Make one call; that it fails is part of what is learned."""
        from capwasm.errors import GuestError
        from capwasm.values import Err

        if self.plugin is None:
            return
        export, arguments = _call_of(self.plugin, topic, message)
        try:
            value = self.plugin.call(export.whole, *arguments)
            outcome = "err" if isinstance(value, Err) else "done"
        except GuestError as exc:
            outcome = exc.code
            self.learner.note(f"the call {topic} ended: {exc.code} {exc.message}")
        self.calls.append({"call": topic, "outcome": outcome})

    def to_dict(self) -> dict[str, Any]:
        """What was run, and how."""
        return {
            "file": str(self.file),
            "sha256": self.artifact.sha256,
            "kind": self.kind if self.words is None else self.words["kind"],
            "strict": self.strict,
            "started": self.plugin is not None,
            "calls": self.calls,
        }


def _call_of(plugin: Plugin, topic: str, message: str) -> tuple[Export, list[Any]]:
    """The export that is meant, and the values for it."""
    from ._calling import arguments

    for export in plugin.functions:
        if export.whole.partition("@")[0].partition("#")[0] == _HANDLE:
            return export, [topic, message.encode()]
    export = plugin.functions.find(topic)
    if len(export.type.params) == 1:
        return export, arguments(export, (message,))
    try:
        several = json.loads(message)
    except ValueError:
        several = None
    if not isinstance(several, list):
        raise click.UsageError(f"{shown(export.signature)} takes a JSON array of its arguments")
    words = tuple(word if isinstance(word, str) else json.dumps(word) for word in several)
    return export, arguments(export, words)


def _words(file: Path, kind: str, core: str) -> dict[str, Any]:
    """A `[plugin]` table to begin with, for a file that has none."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in file.stem.lower())
    label = "-".join(part for part in kept.split("-") if part)[:40].strip("-")
    label = label if label[:1].isalpha() else f"plugin-{label}".strip("-")
    return {
        "id": f"example.{label}",
        "name": label,
        "version": "0.1.0",
        "requires-core": f">={core.partition('-')[0].partition('+')[0]}",
        "kind": kind,
        "isolation": "process",
    }


def _summary(run: _Run, proposal: Proposal) -> None:
    """What was tried, on stderr, so that stdout is the manifest alone."""
    out = console(error=True)
    how = "in strict mode" if run.strict else "with what it is granted"
    started = "" if run.plugin is not None else "; it did not start"
    out.print(f"\n{shown(run.file)} ran {how}{started}.", markup=False)
    for call in run.calls:
        out.print(f"  call {shown(call['call'])}: {call['outcome']}", markup=False)
    for attempt, times in list(proposal.attempts.items())[:20]:
        often = f" ({times} times)" if times > 1 else ""
        line = f"  {attempt.kind}: {attempt}{often}"
        out.print(shown(line), style="yellow", markup=False)
    more = len(proposal.attempts) - 20 + proposal.left_off
    if more > 0:
        out.print(f"  … and {more} more, in the audit log", style="yellow")
    if not run.calls:
        out.print("Nothing was called: give --call, so that it shows what it wants.")
    if run.strict:
        out.print("Look at what is proposed, give it an id of yours, pack it and sign it.")


commands: list[click.Command] = [learn]
