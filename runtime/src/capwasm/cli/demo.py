"""`capwasm demo`: plays `capwasm.demo`, and tells what happens."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import console, epilog, json_option, say_json, shown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from capwasm.demo.owner import Permission
    from capwasm.demo.play import Step

__all__ = ["commands"]

COLOURS: Final = {"allowed": "bold green", "denied": "bold red", "refused": "bold red"}
RISKS: Final = {"low": "green", "medium": "yellow", "high": "bold red"}
# What the table of the audit log leaves out: it would say the same again.
DULL: Final = {"anchor", "runtime.start", "grant", "log", "call"}


@click.command(
    epilog=epilog(
        "capwasm demo",
        "capwasm demo --yes --json",
        codes="0 all went as it should, 1 it did not or consent was refused, 2 wrong usage",
    )
)
@click.option("--yes", is_flag=True, help="Consent without being asked.  For scripts.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Play it in this new directory and keep that, to look around.",
)
@click.option("--plain", is_flag=True, help="No colour.")
@json_option
def demo(yes: bool, keep: Path | None, plain: bool, as_json: bool) -> None:
    """See it work: a signed plugin, consent, a granted call, denied attempts, the audit.

    Needs no network, no root and about a second; touches nothing but a directory of its own.
    """
    from capwasm.demo.play import play

    if as_json and not yes:
        raise click.UsageError("nobody to ask: give --yes")
    page = _Page(console(plain=plain, columns=80), quiet=as_json)
    began = time.monotonic()
    with _directory(keep) as root:
        page.begin(root)
        steps = []
        for step in play(root, lambda asked: page.ask(asked, yes=yes)):
            steps.append(step)
            page.show(step)
        records = _records(root)
    seconds = round(time.monotonic() - began - page.waited, 2)
    ok = all(step.ok for step in steps)
    if as_json:
        say_json(
            {
                "ok": ok,
                "seconds": seconds,
                "kept": str(root) if keep else None,
                "permissions": [asdict(p) for p in page.asked],
                "steps": [_data(step) for step in steps],
                "audit": records,
            },
            indent=2,
        )
    else:
        page.end(records, steps, seconds, keep)
    raise click.exceptions.Exit(0 if ok else 1)


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="capwasm-demo-") as made:
            yield Path(made)
        return
    try:
        keep.mkdir(mode=0o700, parents=True)
    except OSError as exc:
        raise click.BadParameter(f"{exc.strerror}: {keep}", param_hint="--keep") from None
    yield keep.absolute()


def _records(root: Path) -> list[dict[str, Any]]:
    from capwasm.home import Home
    from capwasm.record.audit import tail

    return list(tail(Home(root / "home").audit, 1_000))


def _data(step: Step) -> dict[str, Any]:
    from capwasm.demo.story import STORY

    return {"verdict": STORY[step.name].verdict, **asdict(step)}


class _Page:
    """The demo as people see it; quiet, it only keeps what was asked.

    Attributes:
        asked: the permissions that a person was asked for.
        waited: seconds until the answer.
    """

    def __init__(self, out: Console, *, quiet: bool) -> None:
        self._out = out
        self._quiet = quiet
        self._count = 0
        self.asked: Sequence[Permission] = ()
        self.waited = 0.0

    def _print(self, *what: RenderableType) -> None:
        if not self._quiet:
            self._out.print(*what)

    def begin(self, root: Path) -> None:
        from rich.text import Text

        self._print(
            Text.assemble(
                ("capwasm demo", "bold"),
                ": someone else's plugin, with only the handles that you grant it.\n",
                (f"Everything happens in {root}\n", "dim"),
            )
        )

    def show(self, step: Step) -> None:
        from rich.table import Table
        from rich.text import Text

        from capwasm.demo.story import STORY

        self._count += 1
        scene = STORY[step.name]
        verdict: str = scene.verdict if step.ok else "WRONG"
        style = COLOURS.get(verdict, "bold" if step.ok else "bold white on red")
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=2, justify="right", style="dim")
        grid.add_column(width=7)
        grid.add_column()
        grid.add_row(str(self._count), Text(verdict, style), Text(scene.title, "bold"))
        grid.add_row("", "", Text(shown(step.told), style if step.ok else "bold red"))
        grid.add_row("", "", Text(scene.why, "dim"))
        self._print(grid)

    def ask(self, asked: Sequence[Permission], *, yes: bool) -> bool:
        from rich.table import Table
        from rich.text import Text

        self.asked = asked
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=10, justify="right")
        grid.add_column()
        for permission in asked:
            grid.add_row(
                Text(permission.risk, RISKS[permission.risk]),
                Text.assemble(shown(permission.what), "\n", (shown(permission.why), "dim")),
            )
        self._print(Text("\nThe plugin asks to, with the risk of each:", "bold"), grid)
        if yes:
            self._print(Text("Do you agree? yes, says --yes\n", "bold"))
            return True
        began = time.monotonic()
        answer = click.confirm("Do you agree?", default=None)
        self.waited = time.monotonic() - began
        self._print("")
        return answer

    def end(
        self, records: list[dict[str, Any]], steps: list[Step], seconds: float, keep: Path | None
    ) -> None:
        from rich.text import Text

        self._print(Text("\nWhat the audit log says (capwasm audit tail):", "bold"))
        for record in records:
            if record.get("kind") not in DULL and record.get("reason") != "sent":
                self._print(_line(record))
        bad = [step.name for step in steps if not step.ok]
        if bad:
            text = f"\n{len(bad)} of {len(steps)} steps went wrong: {', '.join(bad)}"
            self._print(Text(text, "bold white on red"))
            return
        self._print(
            Text.assemble(
                (f"\nAll {len(steps)} steps went as they should", "bold green"),
                f", in {seconds} s.\n",
                (_next(keep), "dim"),
            )
        )


def _line(record: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    verdict, kind = str(record["verdict"]), shown(record["kind"])
    # A digest is shown by its beginning, and what is said already is not said again.
    words = [shown(record[w]) for w in ("action", "target") if record.get(w)]
    what = " ".join(w[:12] if len(w) == 64 and w.isalnum() else w for w in words if w != kind)
    reason = f" ({shown(record['reason'])})" if record.get("reason") else ""
    text = Text.assemble(
        (f"{record['seq']:>3} ", "dim"),
        (f"{verdict:<8}", COLOURS.get(verdict, "yellow")),
        f"{kind:<8} {what}{reason}",
    )
    text.truncate(80, overflow="ellipsis")
    return text


def _next(keep: Path | None) -> str:
    if keep is None:
        return "Read on: capwasm --help; or keep the files: capwasm demo --keep DIR"
    return f"Look around: capwasm audit verify --home {shown(keep)}/home"


commands: list[click.Command] = [demo]
