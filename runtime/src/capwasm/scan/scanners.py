"""All scanners: those of capwasm, and those of others that the policy names.

Others give a `Scanner` as an entry point of the group `capwasm.scanners`.  Such code runs with all
the power of whoever scans, so it is off until the policy names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from capwasm.errors import Fault, PolicyError

from .model import Rule, Scanner
from .run import RULES

__all__ = ["GROUP", "catalogue", "chosen_scanners", "standard_scanners"]

GROUP: Final = "capwasm.scanners"

# The modules of this room that have scanners, in the order in which they run: the quick ones first.
# Each has `SCANNERS`, a tuple of `Scanner`.  What needs an extra is imported when it scans.
MODULES: Final = (
    *("known", "asks", "shape", "world", "paths", "hosts", "tokens", "payloads"),
    *("licences", "sbom", "osv", "elf", "dryrun"),
)


def standard_scanners() -> tuple[Scanner, ...]:
    """The scanners that come with capwasm."""
    return tuple(s for name in MODULES for s in _of(import_module(f"capwasm.scan.{name}")))


def _of(module: object) -> Sequence[Scanner]:
    found: Sequence[Scanner] = module.SCANNERS  # type: ignore[attr-defined]
    return found


def chosen_scanners(names: Sequence[str] = ()) -> tuple[Scanner, ...]:
    """The standard scanners, and those of others that the policy names, after them.

    Raises:
        PolicyError: `policy.invalid`: one is not installed, can't be imported, is no `Scanner`, or
            has a name or a rule of another's.  A scan that leaves out what the policy wants would
            look like one that found nothing.
    """
    chosen = list(standard_scanners())
    offered: dict[str, EntryPoint] = {e.name: e for e in entry_points(group=GROUP)} if names else {}
    for index, name in enumerate(names):
        place = f"scan.scanners[{index}]"
        if name not in offered:
            known = ", ".join(sorted(offered)) or "none"
            raise _refuse(place, f"no scanner {name!a} is installed; there are: {known}")
        try:
            scanner = offered[name].load()
        except (Exception, SystemExit) as exc:  # noqa: BLE001  code of others: it may fail in any way
            raise _refuse(place, f"can't be imported: {type(exc).__name__}: {exc}"[:300]) from None
        if not isinstance(scanner, Scanner):
            raise _refuse(place, "is no capwasm.scan.model.Scanner")
        taken = {s.name for s in chosen} | catalogue(chosen).keys()
        if again := sorted(taken & {scanner.name, *(r.id for r in scanner.rules)}):
            raise _refuse(place, f"has names of another scanner: {', '.join(again)}")
        chosen.append(scanner)
    return tuple(chosen)


def catalogue(scanners: Iterable[Scanner]) -> dict[str, Rule]:
    """Every rule that these may find, and those of the runner itself, by id."""
    return {rule.id: rule for rule in (*RULES, *(r for s in scanners for r in s.rules))}


def _refuse(place: str, message: str) -> PolicyError:
    return PolicyError(
        "a scanner can't be used", code="policy.invalid", faults=[Fault(place, message)]
    )
