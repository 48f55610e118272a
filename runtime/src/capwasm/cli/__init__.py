"""The `capwasm` command: one module a group of commands, imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from ._output import JSON

__all__ = ["COMMANDS", "EXIT_CODES", "capwasm", "main"]

# command -> (module, what it does).  Written down here so that `capwasm --help` imports nothing;
# tests/cli/test_door.py holds it against the modules.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "See it work: verify, grant, call, a denied attempt, the audit."),
    "new": ("new", "Make a plugin's project that builds as it is."),
    "build": ("build", "Make a component of a project's sources, and a capsule of it."),
    "test": ("test", "Build a project if need be, and run its tests."),
    "run": ("run", "Try a plugin out, with just what it asks for."),
    "bindgen": ("bindgen", "Write a typed Python module for a plugin's functions."),
    "keygen": ("capsule", "Make a key that signs capsules."),
    "pack": ("capsule", "Make a capsule of a directory."),
    "sign": ("capsule", "Add a signature to a capsule."),
    "verify": ("capsule", "Prove that a capsule is what trusted keys signed."),
    "statement": ("capsule", "Write what a Sigstore bundle for a capsule has to sign."),
    "inspect": ("capsule", "Show what a capsule holds."),
    "manifest": ("manifest", "Check a plugin.toml; print its JSON Schema."),
    "policy": ("policy", "Check, lint, test and publish a policy.toml."),
    "grants": ("grants", "Explain what a plugin is granted, and why."),
    "consent": ("grants", "Give, list and withdraw consents."),
    "vault": ("vault", "Keep secrets for plugins."),
    "install": ("registry", "Verify a capsule, keep it, and have it serve."),
    "list": ("installed", "List what is installed."),
    "show": ("installed", "Show a plugin's versions, owner, exceptions and history."),
    "submit": ("review", "Keep a capsule to be reviewed; it does not serve by that."),
    "review": ("review", "Show what waits for a review, and all that is known of it."),
    "approve": ("review", "Say as a reviewer that a version may serve."),
    "reject": ("review", "Forget the version that waits, or reject one for good."),
    "except": ("review", "Sign one half of a security exception."),
    "activate": ("registry", "Have a version serve that waits or was suspended."),
    "update": ("updates", "Take newer versions from the plugins' repositories."),
    "outdated": ("updates", "List what there are newer versions of."),
    "pending": ("updates", "List the versions that wait for a person."),
    "diff": ("diff", "Show what differs between two versions of a plugin."),
    "pin": ("updates", "Have a plugin take no other version."),
    "unpin": ("updates", "Have a plugin take new versions again."),
    "suspend": ("registry", "Take a plugin out of service."),
    "kill": ("kill", "End what runs of a plugin, in every core of this home."),
    "strikes": ("kill", "See plugins' strikes, and let one run again."),
    "rollback": ("registry", "Go back to the version that served before."),
    "remove": ("registry", "Remove a plugin; its id stays its publisher's."),
    "permit": ("registry", "Make an exception from the update rules."),
    "revoke": ("revocations", "End an installed version for good."),
    "revocations": ("revocations", "Make, accept and see revocation feeds."),
    "store": ("registry", "Check and clean the store of installed capsules."),
    "repo": ("repo", "Use plugin repositories, or make one."),
    "push": ("oci", "Push a capsule to an OCI registry."),
    "pull": ("oci", "Pull a capsule from an OCI registry."),
    "scan": ("scan", "Tell what scanners find in a capsule."),
    "call": ("call", "Load a capsule and call one of its functions."),
    "learn": ("learn", "Run a plugin where it can do no harm, and propose its manifest."),
    "serve": ("serve", "Serve the admin page: reviews, plugins, the audit, the policy."),
    "serve-plugin": ("serve_plugin", "Hand HTTP requests to a plugin that answers them."),
    "top": ("top", "Show what plugins do right now."),
    "audit": ("audit", "Read and verify the audit log."),
    "osv": ("osv", "Keep the mirror of advisories that scans look in."),
    "cache": ("cache", "See and prune the compiled code that is kept."),
    "doctor": ("doctor", "Show what this machine enforces, and known advisories."),
}

EXIT_CODES = {
    0: "done",
    1: "refused: bad input, a denial, a failed verification, or a plugin's own failure",
    2: "wrong usage",
    70: "a defect of capwasm",
    130: "interrupted",
    141: "the reader of the output went away",
}


class _Program(click.Group):
    """Finds a command's module when the command is run, and is the door of all of them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; whatever ends it leaves by the one door."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # a reader that went away is noticed here, not at exit
        except (click.exceptions.Exit, click.ClickException, SystemExit):
            raise
        except BaseException as exc:  # noqa: BLE001  nothing may pass by the door
            from ._door import tell

            ctx.exit(tell(exc, as_json=ctx.meta.get(JSON, False)))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"capwasm.cli.{COMMANDS[cmd_name][0]}")
        commands: list[click.Command] = module.commands
        return next(c for c in commands if c.name == cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in EXIT_CODES.items()])


@click.command(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExample:\n  capwasm demo\n  capwasm keygen --help",
)
@click.version_option(package_name="capwasm")
def capwasm() -> None:
    """Run signed, untrusted plugins with only the handles they were granted."""


def main() -> None:
    """Run the command line."""
    capwasm.main(prog_name="capwasm")
