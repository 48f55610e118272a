"""The whole error tree, and the four audiences it keeps apart.

* The caller's own misuse is `TypeError`, `ValueError` or `RuntimeError`, as everywhere in Python.
* Bad input, a refused load and a plugin that broke a limit are a `CapwasmError`.
* What a guest may learn is a `CapError`: a bare word, turned into a WIT variant at the boundary.
* A bug of ours is an `InternalError`; the instance that met it is never used again.

::

    CapwasmError
    ├── BuildError           an author's project can't be built
    ├── ArtifactError        the bytes can't be had, can't be packed, or are not a component
    ├── VerificationError    signature, digest, trust or content of the capsule
    ├── ManifestError        the plugin's declaration is malformed (all faults at once)
    ├── PolicyError          the operator's policy or trust file is malformed
    ├── ConsentError         a consent record is missing, malformed or for other bytes
    ├── GrantDeniedError     asked for more than allowed: each with the line that would allow it
    ├── LinkError            the component imports what no grant provides
    ├── GuestError           the plugin's own fault, during a call
    │   ├── GuestTrap
    │   ├── GuestCrashed     its own process died, or broke the protocol
    │   ├── LimitExceeded    one subclass a limit
    │   ├── CallInterrupted  killed, evicted or revoked while running
    │   └── InstanceClosedError
    ├── ShimError            a plugin's own process can't be started or confined
    ├── CapabilityError      an operator's command on a capability failed (vault, kv store)
    ├── RegistryError        what is installed can't be read, changed or believed
    ├── RepositoryError      a place that plugins come from can't be reached or believed
    ├── RevocationError      a revocation feed can't be read, believed or kept, or is too old
    ├── AuditError           the sink failed: the operation does not happen
    ├── ScanError            what scanners are given to look with can't be read or made
    ├── AdminError           the admin page can't be served, or refuses a request
    └── InternalError        our bug
    CapError (not a CapwasmError)   what a guest sees

A foreign exception that leaves the public door is a bug with a test of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .codes import CODES

__all__ = [
    "CODES",
    "AdminError",
    "ArtifactError",
    "AuditError",
    "BuildError",
    "CallInterrupted",
    "CapError",
    "CapabilityError",
    "CapwasmError",
    "ConcurrencyExceeded",
    "ConsentError",
    "DeadlineExceeded",
    "Fault",
    "FuelExhausted",
    "GrantDeniedError",
    "GuestCrashed",
    "GuestError",
    "GuestTrap",
    "HandleLimitExceeded",
    "HostCallLimitExceeded",
    "InstanceClosedError",
    "InstancesExceeded",
    "InternalError",
    "LimitExceeded",
    "LinkError",
    "ManifestError",
    "MemoryLimitExceeded",
    "NetBudgetExceeded",
    "OutputLimitExceeded",
    "PolicyError",
    "RecursionLimitExceeded",
    "RegistryError",
    "RepositoryError",
    "RevocationError",
    "ScanError",
    "ShimError",
    "StackExhausted",
    "TableLimitExceeded",
    "ValueLimitExceeded",
    "VerificationError",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an input.

    Attributes:
        path: where, as written in the input (`net[2].allow`); empty for the whole.
        message: what is wrong, and which words would be valid.
        fix: a line that the operator could write to mend it, or None.
    """

    path: str
    message: str
    fix: str | None = None

    def __str__(self) -> str:
        """One line, and those of the fix, if there is one."""
        head = f"{self.path}: {self.message}" if self.path else self.message
        if not self.fix:
            return head
        return f"{head}\n    fix: " + self.fix.replace("\n", "\n         ")


class CapwasmError(Exception):
    """Base of all that this package raises on purpose.

    Attributes:
        code: a stable word of `CODES`, fit for a program to branch on.
        context: what was being handled (a plugin id, a file name); may be empty.
        faults: all faults found, not only the first.
    """

    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        context: str = "",
        faults: Sequence[Fault] = (),
    ) -> None:
        """Keep the message, and the code if it is one of the table."""
        self.code = code or self.default_code
        if self.code not in CODES:
            raise ValueError(f"unknown error code {self.code!r}")
        self.message = message
        self.context = context
        self.faults = tuple(faults)
        super().__init__(message)

    def __str__(self) -> str:
        """The message, then one line a fault."""
        head = f"{self.context}: {self.message}" if self.context else self.message
        return "\n".join([head, *(f"  {line}" for f in self.faults for line in str(f).split("\n"))])

    def to_dict(self) -> dict[str, object]:
        """The error as plain data, for `--json` and for the audit log."""
        out: dict[str, object] = {
            "error": type(self).__name__,
            "code": self.code,
            "message": self.message,
        }
        if self.context:
            out["context"] = self.context
        if self.faults:
            out["faults"] = [
                {"path": f.path, "message": f.message, **({"fix": f.fix} if f.fix else {})}
                for f in self.faults
            ]
        return out


class ArtifactError(CapwasmError):
    """The bytes can't be had, or are not what they should be."""

    default_code = "artifact.unreadable"


class BuildError(CapwasmError):
    """An author's project can't be built; the message says what to change."""

    default_code = "build.failed"


class VerificationError(CapwasmError):
    """The capsule is not proven to be what a trusted key signed."""

    default_code = "verify.envelope"


class ManifestError(CapwasmError):
    """The plugin's declaration is malformed."""

    default_code = "manifest.invalid"


class PolicyError(CapwasmError):
    """The operator's policy, trust store or key file is malformed."""

    default_code = "policy.invalid"


class ConsentError(CapwasmError):
    """A consent record is malformed, or the store can't be used."""

    default_code = "consent.invalid"


class GrantDeniedError(CapwasmError):
    """More was asked for than is allowed; `faults` names each with its fix."""

    default_code = "grant.denied"


class LinkError(CapwasmError):
    """The component imports what no grant provides."""

    default_code = "link.undeclared-import"


class GuestError(CapwasmError):
    """The plugin's own fault, during a call."""

    default_code = "guest.trap"


class GuestTrap(GuestError):
    """The plugin trapped: unreachable code, a bad memory access, a broken contract."""


class GuestCrashed(GuestError):
    """The plugin's own process died, hung or broke the protocol; the message says how."""

    default_code = "guest.crashed"


class CallInterrupted(GuestError):
    """The call was stopped from outside; `context` says by what."""

    default_code = "guest.interrupted"


class InstanceClosedError(GuestError):
    """The instance or the plugin is closed, evicted or suspended."""

    default_code = "guest.closed"


class LimitExceeded(GuestError):
    """The plugin went over one of its limits; the subclass says which."""

    default_code = "limit.value"


class FuelExhausted(LimitExceeded):
    """Over `limits.fuel`."""

    default_code = "limit.fuel"


class DeadlineExceeded(LimitExceeded):
    """Over `limits.wall-ms`, in guest code or in a host call."""

    default_code = "limit.deadline"


class MemoryLimitExceeded(LimitExceeded):
    """Over `limits.memory`."""

    default_code = "limit.memory"


class TableLimitExceeded(LimitExceeded):
    """Over `limits.table-elements`."""

    default_code = "limit.table"


class StackExhausted(LimitExceeded):
    """The guest's call stack is exhausted."""

    default_code = "limit.stack"


class RecursionLimitExceeded(LimitExceeded):
    """Host and guest call each other too deep."""

    default_code = "limit.recursion"


class HostCallLimitExceeded(LimitExceeded):
    """Over `limits.host-calls`."""

    default_code = "limit.host-calls"


class OutputLimitExceeded(LimitExceeded):
    """Over `limits.output-bytes`."""

    default_code = "limit.output"


class ValueLimitExceeded(LimitExceeded):
    """A list, string or total of values is larger than may cross at once."""


class HandleLimitExceeded(LimitExceeded):
    """Over `limits.handles`."""

    default_code = "limit.handles"


class NetBudgetExceeded(LimitExceeded):
    """Over `limits.net-bytes`."""

    default_code = "limit.net-bytes"


class ConcurrencyExceeded(LimitExceeded):
    """Over `limits.concurrency`, and none became free in time."""

    default_code = "limit.concurrency"


class InstancesExceeded(LimitExceeded):
    """The runtime has no room for one more instance, of any plugin; see `Capacity`."""

    default_code = "limit.capacity"


class ShimError(CapwasmError):
    """A process for the plugin can't be started, or not confined as the policy requires."""

    default_code = "shim.start"


class CapabilityError(CapwasmError):
    """An operator's command on a vault, store or binding failed."""

    default_code = "capability.bind"


class RegistryError(CapwasmError):
    """What is installed can't be read, changed or believed; the old state stands."""

    default_code = "registry.unusable"


class RepositoryError(CapwasmError):
    """A place that plugins come from can't be reached, or is not to be believed."""

    default_code = "repository.unavailable"


class RevocationError(CapwasmError):
    """A revocation feed can't be read, believed or kept, or is too old."""

    default_code = "revocation.feed"


class AuditError(CapwasmError):
    """The audit sink failed; what was to be recorded did not happen."""

    default_code = "audit.sink"


class ScanError(CapwasmError):
    """What an operator gave scanners to look with can't be read or made."""

    default_code = "scan.mirror"


class AdminError(CapwasmError):
    """The admin page can't be served as asked, or refuses a request."""

    default_code = "admin.request"


class InternalError(CapwasmError):
    """A defect of this runtime; please report it."""

    default_code = "internal"


class CapError(Exception):
    """What a guest may learn of a failed capability call: one word of the interface's `error`.

    `word` is a case name as written in WIT (`denied`, `not-found`).  `detail` is for the operator:
    it goes to the audit log, redacted, and never to the guest.

    `denied` stands for "not granted, or not there": a guest cannot tell which.
    """

    def __init__(self, word: str, detail: str = "") -> None:
        """Keep the guest's word and the operator's detail apart."""
        self.word = word
        self.detail = detail
        super().__init__(word)
