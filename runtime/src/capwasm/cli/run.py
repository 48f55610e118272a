"""`capwasm run`: an author tries a plugin out, in a home of its own, with just what it asks for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._asks import say_line, show_permissions, status
from ._calling import list_functions, make_call
from ._output import console, epilog, json_option, shown
from ._progress import CompileLine

if TYPE_CHECKING:
    from capwasm.authoring.devhome import DevHome, Ready, Wishes
    from capwasm.authoring.said import Said
    from capwasm.caps.log import PluginRecord
    from capwasm.events import Event

__all__ = ["commands"]

KEPT = ".capwasm"


@click.command(
    # What stands after the project is data, whatever it looks like.
    context_settings={"allow_interspersed_args": False},
    epilog=epilog(
        "capwasm run . greet Ada",
        "capwasm run --watch --yes . greet Ada",
        "capwasm run --secret token=@token.txt --bind data=samples weather/ forecast Oslo",
        codes="0 done, 1 refused or the function returned an err, 2 wrong usage, 130 interrupted",
    ),
)
@json_option
@click.option("-w", "--watch", is_flag=True, help="Build, load and call again when a file changes.")
@click.option("-y", "--yes", is_flag=True, help="Give it what it asks for, without a question.")
@click.option("-v", "--verbose", is_flag=True, help="Tell what the call used.")
@click.option("--keep", is_flag=True, help=f"Keep its home, as {KEPT} beside the project.")
@click.option("--bind", multiple=True, metavar="NAME=DIR", help="The directory of an [[fs]] bind.")
@click.option("--config", multiple=True, metavar="KEY=VALUE", help="The value of a setting.")
@click.option("--secret", multiple=True, metavar="NAME=@FILE", help="A secret; else asked for.")
@click.option("--module", default="plugin", show_default=True, help="The Python module.")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("function", required=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(
    as_json: bool,
    watch: bool,
    yes: bool,
    verbose: bool,
    keep: bool,
    bind: tuple[str, ...],
    config: tuple[str, ...],
    secret: tuple[str, ...],
    module: str,
    source: Path,
    function: str | None,
    args: tuple[str, ...],
) -> None:
    """Build the project SOURCE and call FUNCTION; without FUNCTION, list its functions.

    SOURCE is a project's directory, or a capsule.  Options stand before SOURCE.  ARGS are JSON
    values; where a parameter is a string, plain text will do.

    It runs in a home of its own, which is removed at the end: with a key of its own, a policy that
    allows what plugin.toml asks and no more, and empty directories for its [[fs]] tables.  The home
    of this user's own, and what it holds, play no part.
    """
    from capwasm.authoring.devhome import kept_home, throwaway_home

    if watch and not source.is_dir():
        raise click.UsageError("--watch is for a project's directory")
    wishes = _wishes(bind, config, secret)
    beside = (source if source.is_dir() else source.absolute().parent) / KEPT
    with kept_home(beside) if keep else throwaway_home() as dev:
        trial = _Trial(dev, wishes, source, module, yes, as_json, verbose, function, args)
        if watch:
            trial.watch()
        good = trial.once()
    raise click.exceptions.Exit(int(not good))


@dataclass
class _Trial:
    """One project, as often as it is run."""

    dev: DevHome
    wishes: Wishes
    source: Path
    module: str
    yes: bool
    as_json: bool
    verbose: bool
    function: str | None
    args: tuple[str, ...]
    agreed: list[dict[str, Any]] | None = field(default=None)

    def once(self) -> bool:
        """Build, load, call; whether it went well.

        Raises:
            CapwasmError: as the build, the load and the call do.
            click.UsageError: the arguments do not fit.
        """
        from capwasm.authoring.advice import advise
        from capwasm.authoring.said import Said
        from capwasm.errors import GuestError
        from capwasm.runtime import Runtime

        from .call import core_version

        ready = self.dev.prepare(self._capsule(), self.wishes)
        self._agree(ready)
        self.dev.consent(ready)
        events: list[Event] = []
        said = Said()
        with (
            _quiet_logger(),
            Runtime.open(
                self.dev.home.root,
                core_version=core_version(None),
                hook=events.append,
                on_slow=lambda text: click.echo(text, err=True),
                on_compile=CompileLine(),
                on_log=lambda record: _show_log(record, said),
            ) as runtime,
        ):
            try:
                plugin = runtime.load(ready.capsule)
                if self.function is None:
                    list_functions(plugin, as_json=self.as_json)
                    return True
                called = make_call(plugin, events, self.function, self.args, as_json=self.as_json)
            except GuestError as exc:
                raise advise(exc, ready.manifest, said) from None
        called.show(events, as_json=self.as_json, verbose=self.verbose)
        return called.good

    def watch(self) -> None:
        """Again and again, until it is interrupted; what goes wrong is told, and ends nothing."""
        from capwasm.authoring.watch import see, wait_for_change
        from capwasm.errors import CapwasmError, InternalError

        from ._door import tell

        out = console(error=True)
        while True:
            seen = see(self.source)
            try:
                self.once()
            except InternalError:
                raise
            except CapwasmError as exc:
                tell(exc, as_json=self.as_json)
            except click.UsageError as exc:
                out.print(f"error {shown(exc.format_message())}", style="red", markup=False)
            sys.stdout.flush()
            out.print("watching; Ctrl-C ends it", style="dim")
            changed = wait_for_change(self.source, seen)
            names = ", ".join(p.relative_to(self.source).as_posix() for p in changed[:5])
            out.print(f"\nchanged: {shown(names)}", style="bold", markup=False)

    def _capsule(self) -> bytes:
        from capwasm.authoring.project import ready_capsule
        from capwasm.capsule.artifact import read_artifact
        from capwasm.engine.compile import COMPONENT_MAGIC
        from capwasm.errors import ArtifactError

        if not self.source.is_file():
            tell = None if self.as_json else status
            say = (lambda _line: None) if self.as_json else say_line
            capsule, built = ready_capsule(self.source, module=self.module, tell=tell, say=say)
            for warning in built.warnings if built else ():
                console(error=True).print(f"warning {shown(warning)}", style="yellow", markup=False)
            return capsule
        data = read_artifact(self.source).data
        if data.startswith(COMPONENT_MAGIC):
            raise ArtifactError(
                "a component without a manifest: put it as plugin.wasm into a directory with a"
                f" plugin.toml, which `capwasm learn {self.source.name}` proposes",
                code="artifact.unreadable",
                context=str(self.source),
            )
        return bytes(data)

    def _agree(self, ready: Ready) -> None:
        """Show what it asks, and ask, unless that is what was agreed to before; then the secrets."""
        from capwasm.authoring.review import permissions
        from capwasm.caps import standard_capabilities
        from capwasm.errors import GrantDeniedError

        rows = permissions(ready.manifest, standard_capabilities())
        if rows != self.agreed:
            if not self.as_json or not self.yes:
                show_permissions(rows, error=True, given=ready.given)
            if rows and not self.yes and not click.confirm("Run it with this?", err=True):
                raise GrantDeniedError("you did not agree", context=ready.manifest.id)
            self.agreed = rows
        for name in ready.missing:
            self.dev.keep_secret(name, _ask_secret(name, ask=not self.yes))


def _ask_secret(name: str, *, ask: bool) -> bytes:
    from capwasm.errors import CapabilityError

    if not ask:
        raise CapabilityError(
            f"it needs the secret {name}; give it with --secret {name}=@FILE",
            code="capability.vault",
        )
    answer: str = click.prompt(f"Secret {name}", hide_input=True, err=True)
    return answer.encode()


def _wishes(bind: tuple[str, ...], config: tuple[str, ...], secret: tuple[str, ...]) -> Wishes:
    from capwasm._files import read_file
    from capwasm.authoring.devhome import Wishes
    from capwasm.caps.secrets.vault import MAX_SECRET
    from capwasm.errors import CapabilityError

    values = {}
    for name, text in _pairs("--secret", secret).items():
        if not text.startswith("@"):
            raise click.UsageError(
                f"--secret {name}=@FILE: a value on the command line could be seen by others"
            )
        values[name] = read_file(
            text[1:], MAX_SECRET + 2, CapabilityError, code="capability.vault"
        ).rstrip(b"\r\n")
    return Wishes(
        {name: Path(text).absolute() for name, text in _pairs("--bind", bind).items()},
        _pairs("--config", config),
        values,
    )


def _pairs(option: str, words: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or name in pairs:
            raise click.UsageError(f"{option} {shown(word)}: write NAME=…, each name once")
        pairs[name] = value
    return pairs


def _show_log(record: PluginRecord, said: Said) -> None:
    """A record of the plugin's log; of what it prints, what says something to its author."""
    if record.channel == "log":
        fields = "".join(f" {name}={value}" for name, value in record.fields.items())
        line = f"log {record.level}: {record.message}{fields}"
    else:
        text = said.line(record.message) if record.channel == "stderr" else record.message
        if text is None:
            return
        line = f"{record.channel}: {text}"
    console(error=True).print(shown(line), style="cyan", markup=False)


@contextmanager
def _quiet_logger() -> Iterator[None]:
    """What the plugin logs is shown by us, and by nobody else."""
    logger = logging.getLogger("capwasm.plugin")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


commands = [run]
