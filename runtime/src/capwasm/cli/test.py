"""`capwasm test`: the project is built if it has to be, and its tests are run by pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import click

from ._asks import say_line, status
from ._output import epilog, json_option, say_json

__all__ = ["commands"]

PLUGIN = "capwasm.testing.pytest_plugin"
INSTALL = 'pip install "capwasm[testing]"'


@click.command(
    "test",
    # What stands after the directory is for pytest.
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    epilog=epilog(
        "capwasm test",
        "capwasm test greeter -k counts -x",
        codes="0 all passed, 1 some failed or it can't be built, 2 wrong usage, 5 no tests, 130 interrupted",
    ),
)
@json_option
@click.option("--module", default="plugin", show_default=True, help="The Python module.")
@click.argument("directory", type=click.Path(path_type=Path), default=".")
@click.argument("pytest_args", nargs=-1, type=click.UNPROCESSED)
def test(as_json: bool, module: str, directory: Path, pytest_args: tuple[str, ...]) -> None:
    """Run the tests of the project in DIRECTORY; PYTEST_ARGS are given to pytest.

    The tests stand in DIRECTORY/tests and use the fixtures of capwasm.testing.  It is built first,
    unless these very sources were built before.
    """
    from capwasm.authoring.project import ready_capsule
    from capwasm.errors import BuildError

    if find_spec("pytest") is None or find_spec(PLUGIN.rpartition(".")[0]) is None:
        raise BuildError(f"tests are run by pytest: {INSTALL}", code="build.toolchain")
    if not (directory / "tests").is_dir():
        raise BuildError(
            "there is no tests/; `capwasm new` makes one with a test to begin with",
            code="build.project",
            context=str(directory),
        )
    ready_capsule(
        directory,
        module=module,
        tell=None if as_json else status,
        say=(lambda _line: None) if as_json else say_line,
    )
    code = _pytest(directory.absolute(), module, pytest_args, quiet=as_json)
    if as_json:
        say_json({"project": str(directory), "passed": code == 0, "exit-code": code}, indent=2)
    raise click.exceptions.Exit(code)


def _pytest(project: Path, module: str, args: tuple[str, ...], *, quiet: bool) -> int:
    """Run pytest in the project; with `quiet`, what it prints goes to stderr."""
    known = any(e.value == PLUGIN for e in entry_points(group="pytest11"))
    argv = [sys.executable, "-m", "pytest", *([] if known else ["-p", PLUGIN])]
    argv += ["--rootdir", str(project), "-p", "no:cacheprovider", "tests", *args]
    env = {
        **os.environ,
        "CAPWASM_PROJECT": str(project),
        "CAPWASM_MODULE": module,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    sys.stdout.flush()
    process = subprocess.Popen(  # noqa: S603 - fixed argv, no shell
        argv, cwd=project, env=env, stdout=sys.stderr.fileno() if quiet else None
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        # It has got the same signal, and tells how far it came.
        process.wait()
        raise


commands = [test]
