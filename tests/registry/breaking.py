"""Break each verb at each system call that changes a file, and look at what is left.

`python -m tests.registry.breaking VERB HOW DIRECTORY STRIDE` prints one JSON document; HOW is
`kill`, `full` (no space from there on), `broken` (nothing can be written, synced or removed from
there on) or `read-only`.
A process of its own, for it forks and has one thread.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capwasm.errors import AuditError, CapwasmError
from capwasm.events import Event
from capwasm.registry.counts import Counts
from capwasm.registry.desk import Desk
from capwasm.registry.model import PermitKind
from capwasm.registry.registry import Registry
from capwasm.review.finding import Report, ScannerRun
from tests import ptracing
from tests.registry.shop import ACME, GLOBEX, ID, Shop, capsule, state_of

OLD, NEW, NEWER = capsule("1.0.0"), capsule("1.1.0"), capsule("1.2.0")
FOREIGN = capsule("1.3.0", keys=(GLOBEX,))
RENEWED = capsule("1.0.0", keys=(ACME, GLOBEX))
WHO: dict[str, Any] = {"who": "tester", "why": "a test"}
TRIAL = (ID, "1.1.0", "2027-01-31T12:00:00Z")


class Journal:
    """Writes events to a file, durably, as the audit log does, but without a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, event: Event) -> None:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(fd, f"{event.verdict} {event.action} {event.plugin}\n".encode())
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            raise AuditError(str(exc)) from exc

    @classmethod
    def of(cls, home: Path) -> Journal:
        return cls(home.with_name(home.name + ".journal"))

    def told(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


def _installed(*capsules: bytes) -> Callable[[Registry], object]:
    def prepare(registry: Registry) -> None:
        for data in capsules:
            registry.install(data, **WHO)

    return prepare


def _nothing(_registry: Registry) -> None:
    pass


def _with_orphans(registry: Registry) -> None:
    _installed(OLD)(registry)
    registry.store.put(NEW)
    registry.store.put(NEWER)


def _parked_then_permitted(registry: Registry) -> None:
    _installed(OLD, FOREIGN)(registry)
    registry.permit(ID, PermitKind.SIGNER, GLOBEX.public.key_id, **WHO)


def _submitted(registry: Registry) -> None:
    _installed(OLD)(registry)
    registry.submit(NEW, **WHO)


def _scan(registry: Registry) -> None:
    """Say something of what was submitted: a record, a step and a state in one change."""
    found = registry.again(ID, "1.1.0").record
    when = "2027-01-31T12:00:00Z"
    report = Report(ID, "1.1.0", found.archive, when, 0, (), (ScannerRun("test"),), ())
    Desk(registry).scanned(ID, "1.1.0", report)


def _counted(registry: Registry) -> None:
    _installed(OLD, NEW)(registry)
    _count(registry, 1, 0)


def _count(registry: Registry, calls: int, failures: int) -> None:
    counts = Counts(registry.root)
    counts.add(*TRIAL, calls, failures, over=False)
    counts.close()


def count_in(home: Path) -> tuple[int, int] | None:
    """What was counted of the trial, if anything ever was."""
    if not (home / "health.db").exists():
        return None
    counts = Counts(home)
    found = counts.add(*TRIAL, 0, 0, over=False)
    counts.close()
    return found.calls, found.failures


# verb -> how its home begins, and what is done in it.
VERBS: dict[str, tuple[Callable[[Registry], object], Callable[[Registry], object]]] = {
    "first": (_nothing, lambda r: r.install(OLD, **WHO)),
    "update": (_installed(OLD), lambda r: r.install(NEW, **WHO)),
    "pending": (_installed(OLD, NEW), lambda r: r.install(FOREIGN, **WHO)),
    "activate": (_installed(OLD, FOREIGN), lambda r: r.activate(ID, **WHO)),
    "renew": (_installed(OLD), lambda r: r.install(RENEWED, **WHO)),
    "rollback": (_installed(OLD, NEW), lambda r: r.rollback(ID, **WHO)),
    "remove": (_installed(OLD, NEW), lambda r: r.remove(ID, **WHO)),
    "permit": (_installed(NEW), lambda r: r.permit(ID, PermitKind.DOWNGRADE, "1.0.0", **WHO)),
    "collect": (_with_orphans, lambda r: r.collect()),
    "reject": (_installed(OLD, FOREIGN), lambda r: r.reject(ID, **WHO)),
    "ripe": (_parked_then_permitted, lambda r: r.install(FOREIGN, **WHO)),
    "sent-back": (_installed(OLD, NEW), lambda r: r.rollback(ID, leaving="1.1.0", **WHO)),
    "submit": (_installed(OLD), lambda r: r.submit(NEW, **WHO)),
    "scan": (_submitted, _scan),
    "count": (_counted, lambda r: _count(r, 2, 1)),
}


def shop_in(home: Path) -> Shop:
    return Shop(home, Journal.of(home))


def look(home: Path) -> dict[str, Any]:
    """Everything, checked by a process that knows nothing: state, store, what a load would get."""
    shop = shop_in(home)
    with shop.registry() as registry:
        report = registry.verify()
        plugin = registry.find(ID)
        if plugin is not None:
            registry.history(ID)
        served = None
        if plugin is not None and plugin.active is not None:
            artifact, record = registry.serving(ID)
            served = (artifact.version, record.bundle)
        return {
            "state": state_of(plugin),
            "problems": report.problems,
            "served": served,
            "count": count_in(home),
            "listed": [(p.id, p.serving, p.state) for p in registry.list(removed=True)],
        }


def rest(home: Path) -> list[str]:
    """What is wrong once the litter is collected."""
    shop = shop_in(home)
    with shop.registry() as registry:
        registry.collect()
        report = registry.verify()
    return [*report.problems, *report.orphans]


class Bench:
    """One verb, on copies of the home that it begins with."""

    def __init__(self, verb: str, base: Path) -> None:
        self.verb, self.base = verb, base
        prepare, self.act = VERBS[verb]
        with shop_in(base / "template").registry() as registry:
            prepare(registry)
        self.faults: list[str] = []
        self.seen = {"old": 0, "new": 0, "refused": 0}
        whole = self.fresh("whole")
        self.old = look(whole)
        self.trace = ptracing.run(self.work(whole))
        self.new = look(whole)
        if self.trace.status != 0:
            self.faults.append(f"the verb failed: {self.trace.status}")

    def fresh(self, name: str) -> Path:
        home = self.base / name
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self.base / "template", home)
        home.with_name(name + ".journal").unlink(missing_ok=True)
        return home

    def work(self, home: Path) -> Callable[[], int]:
        def run() -> int:
            try:
                with shop_in(home).registry() as registry:
                    self.act(registry)
            except CapwasmError as exc:
                return NAMED.get(exc.code, 1)
            return 0

        return run

    def step(self, number: int, how: str) -> None:
        home = self.fresh("broken")
        broken = ptracing.run(self.work(home), **HOW[how](number))
        where = f"{number}: {broken.calls[-1] if broken.calls else '?'} {broken.status}"
        if how == "kill" and not broken.killed:
            self.faults.append(f"{where}: not killed")
        if broken.status not in (0, *NAMED.values()) and not broken.killed:
            self.faults.append(f"{where}: it ended with {broken.status}")
        found = look(home)
        told = [line for line in Journal.of(home).told() if "allowed" in line]
        if found["problems"]:
            self.faults.append(f"{where}: {found['problems']}")
        self.seen["refused"] += broken.status in NAMED.values()
        if found == self.new and found != self.old:
            self.seen["new"] += 1
            if not told and self.verb != "count":  # calls are in the audit by themselves
                self.faults.append(f"{where}: it happened, and the audit does not tell")
            if how == "full" and broken.status != 0:
                self.faults.append(f"{where}: it happened, and was told to have failed")
        elif found == self.old:
            self.seen["old"] += 1
            if self.new != self.old and not broken.killed and broken.status == 0:
                self.faults.append(f"{where}: it was told to have happened, and did not")
        else:
            self.faults.append(f"{where}: neither the old state nor the new: {found}")
        # The disk has room again: the same verb comes to the same, and then the litter goes.
        again = ptracing.run(self.work(home))
        if found == self.old and (again.status != 0 or look(home) != self.new):
            self.faults.append(f"{where}: it can't be done again: {again.status}")
        if left := rest(home):
            self.faults.append(f"{where}: left {left}")


# Codes that a verb may end with on a disk that does not take what it is given.
NAMED = {"registry.unusable": 3, "audit.sink": 4}
GROWS = ("write", "pwrite64", "writev", "create", "mkdir", "fallocate", "link")
HOW: dict[str, Callable[[int], dict[str, Any]]] = {
    "kill": lambda n: {"kill_at": n},
    "full": lambda n: {"fail_at": n, "error": errno.ENOSPC, "only": GROWS},
    "broken": lambda n: {"fail_at": n, "error": errno.EIO},
    "read-only": lambda n: {"fail_at": n, "error": errno.EROFS},
}


def main(verb: str, how: str, base: Path, stride: int) -> dict[str, Any]:
    bench = Bench(verb, base)
    steps = len(bench.trace.calls)
    for number in range(1, steps + 1, stride):
        try:
            bench.step(number, how)
        except Exception as exc:
            bench.faults.append(f"{number}: {type(exc).__name__}: {exc}")
    return {
        "steps": steps, "calls": bench.trace.calls, "seen": bench.seen, "faults": bench.faults,
    }  # fmt: skip


if __name__ == "__main__":
    reason = ptracing.why_not(failing=sys.argv[2] != "kill")
    if reason is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # who is killed says nothing of use
        report = main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        report = {"skip": reason}
    sys.stdout.write(json.dumps(report))
