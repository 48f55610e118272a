"""`capwasm run`: a plugin or a program, in a home of its own, with just what it asks for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._asks import say_line, show_permissions, status
from ._calling import list_functions, make_call
from ._output import console, epilog, json_option, shown
from ._program import asks_of, run_program
from ._progress import CompileLine

if TYPE_CHECKING:
    from capwasm.authoring.devhome import DevHome, Ready, Wishes
    from capwasm.authoring.said import Said
    from capwasm.authoring.tool import Asks
    from capwasm.caps.log import PluginRecord
    from capwasm.events import Event

__all__ = ["commands"]

KEPT = ".capwasm"
_BARE = (
    "it has no manifest, so it gets what --read, --write and --net name; for more, put it as"
    " plugin.wasm beside a plugin.toml, which `capwasm learn {}` proposes"
)


@click.command(
    # What stands after the project is data, whatever it looks like.
    context_settings={"allow_interspersed_args": False},
    epilog=epilog(
        "capwasm run . greet Ada",
        "capwasm run --watch --yes . greet Ada",
        "capwasm run --secret token=@token.txt --bind data=samples weather/ forecast Oslo",
        "capwasm run --read samples:/data --env LANG=en tool.wasm -- --count /data/one.txt",
        codes="0 done, 1 refused or the function returned an err, 2 wrong usage, 130 interrupted;"
        " of a program its own status",
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
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable of a program.")
@click.option("--read", multiple=True, metavar="DIR[:MOUNT]", help="A directory to read.")
@click.option("--write", multiple=True, metavar="DIR[:MOUNT]", help="One to read and write.")
@click.option("--net", multiple=True, metavar="[METHODS ]URL", help="An origin that it may ask.")
@click.option("--limit", multiple=True, metavar="WORD=NUMBER", help="A limit, such as wall-ms.")
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
    env: tuple[str, ...],
    read: tuple[str, ...],
    write: tuple[str, ...],
    net: tuple[str, ...],
    limit: tuple[str, ...],
    module: str,
    source: Path,
    function: str | None,
    args: tuple[str, ...],
) -> None:
    """Build the project SOURCE and call FUNCTION; without FUNCTION, list its functions.

    SOURCE is a project's directory, a capsule, or a component.  Options stand before SOURCE.  ARGS
    are JSON values; where a parameter is a string, plain text will do.

    A program (it exports wasi:cli/run) takes all words after SOURCE as its arguments, reads standard
    input and writes to standard output.  A component has no plugin.toml that says what it asks, so
    you do: --read, --write, --net and --limit are for it alone.  A program for WASI's Preview 1 is made
    a component first.

    It runs in a home of its own, which is removed at the end: with a key of its own, a policy that
    allows what plugin.toml asks and no more, and empty directories for its [[fs]] tables.  The home
    of this user's own, and what it holds, play no part.
    """
    from capwasm.authoring.devhome import kept_home, throwaway_home

    if watch and not source.is_dir():
        raise click.UsageError("--watch is for a project's directory")
    asks = asks_of(read, write, net, limit)
    if (read or write or net or limit) and not _is_bare(source):
        raise click.UsageError(
            "--read, --write, --net and --limit are for a component; plugin.toml asks"
        )
    wishes = _wishes({**asks.binds, **_binds(bind)}, config, secret)
    words = () if function is None else (function, *args)
    beside = (source if source.is_dir() else source.absolute().parent) / KEPT
    with kept_home(beside) if keep else throwaway_home() as dev:
        variables = _pairs("--env", env)
        trial = _Trial(dev, wishes, source, module, yes, as_json, verbose, words, asks, variables)
        if watch:
            trial.watch()
        status = trial.once()
    raise click.exceptions.Exit(status)


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
    words: tuple[str, ...]
    asks: Asks
    env: Mapping[str, str]
    agreed: list[dict[str, Any]] | None = field(default=None)

    def once(self) -> int:
        """Build, load, call; with which status to end.

        Raises:
            CapwasmError: as the build, the load and the call do.
            click.UsageError: the arguments do not fit.
        """
        from capwasm.authoring.advice import advise
        from capwasm.authoring.said import Said
        from capwasm.command import runs_as_command
        from capwasm.errors import Fault, GuestError, LinkError
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
                if runs_as_command(plugin):
                    args = self.words[self.words[:1] == ("--",) :]
                    return run_program(plugin, (self.source.name, *args), self.env)
                if self.env:
                    raise click.UsageError("--env is for a program: it exports wasi:cli/run")
                if not self.words:
                    list_functions(plugin, as_json=self.as_json)
                    return 0
                function, *rest = self.words
                called = make_call(plugin, events, function, tuple(rest), as_json=self.as_json)
            except GuestError as exc:
                raise advise(exc, ready.manifest, said) from None
            except LinkError as exc:
                if _is_bare(self.source):
                    exc.faults = (*exc.faults, Fault("", _BARE.format(self.source.name)))
                raise
        called.show(events, as_json=self.as_json, verbose=self.verbose)
        return int(not called.good)

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
        from capwasm.authoring.project import build_cache, ready_capsule
        from capwasm.authoring.tool import tool_capsule
        from capwasm.capsule.artifact import read_artifact

        if not self.source.is_file():
            tell = None if self.as_json else status
            say = (lambda _line: None) if self.as_json else say_line
            capsule, built = ready_capsule(self.source, module=self.module, tell=tell, say=say)
            for warning in built.warnings if built else ():
                console(error=True).print(f"warning {shown(warning)}", style="yellow", markup=False)
            return capsule
        data = bytes(read_artifact(self.source).data)
        if not _is_bare(self.source):
            return data
        with nullcontext() if self.as_json else status("looking at what it is"):
            return tool_capsule(data, self.source.stem, self.asks, build_cache() / "tool")

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


def _is_bare(source: Path) -> bool:
    """Whether it is code without a manifest: a component, or a core module."""
    try:
        with source.open("rb") as file:
            return file.read(4) == b"\0asm"
    except OSError:
        return False


def _binds(bind: tuple[str, ...]) -> dict[str, Path]:
    return {name: Path(text).absolute() for name, text in _pairs("--bind", bind).items()}


def _wishes(binds: Mapping[str, Path], config: tuple[str, ...], secret: tuple[str, ...]) -> Wishes:
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
    return Wishes(binds, _pairs("--config", config), values)


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
