"""`capwasm top`: what plugins do right now, read from the home's audit log alone.

No socket and no port: whoever may read the log may look, and a core that hangs is seen as well.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Final

import click

from ._output import colour, epilog, home_option, json_option, say_json
from ._top_view import SORTS, View

__all__ = ["commands"]

READ_RECORDS: Final = 20_000
"""Of the log's end, to begin with: a minute of a busy core, and soon read of a huge log."""


@click.command(
    epilog=epilog(
        "capwasm top",
        "capwasm top --once --sort denials",
        "capwasm top --json --interval 10 | jq '.plugins[] | select(.failures > 0)'",
        codes="0 done, 1 there is no log to read, 2 wrong usage",
    )
)
@home_option
@click.option("--once", is_flag=True, help="Show it once and end; so it is without a terminal.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds from one look to the next.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 3600),
    default=60,
    show_default=True,
    help="Seconds that are told of.",
)
@click.option(
    "--sort",
    type=click.Choice([word for word, _ in SORTS.values()]),
    default="calls",
    show_default=True,
    help="What comes first.",
)
@json_option
def top(
    home_path: Path, once: bool, interval: float, window: int, sort: str, as_json: bool
) -> None:
    """Show what plugins do right now: calls, failures, denials, latency, fuel, bytes, strikes.

    It reads the end of the home's audit log and nothing of the core.  Latencies are bounds, as the
    log has them: `<5ms`.  Keys: q quits, h shows the others.
    """
    from capwasm.home import Home
    from capwasm.monitor.live import Live
    from capwasm.record.search import Follow

    live, follow = Live(window), Follow(Home(home_path).audit)
    for record in follow.before(READ_RECORDS):
        live.take(record)
    view = View(home_path, live, follow, sort)
    if as_json:
        while True:
            say_json(view.as_json())
            if once:
                return
            time.sleep(interval)
            view.read()
    if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        for line in view.frame(shutil.get_terminal_size((120, 24)).columns, None):
            click.echo(line, color=colour())
        return
    view.run(interval)


commands: list[click.Command] = [top]
