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
    │   ├── LimitExceeded    one subclass a limit
    │   ├── CallInterrupted  killed, evicted or revoked while running
    │   └── InstanceClosedError
    ├── CapabilityError      an operator's command on a capability failed (vault, kv store)
    ├── RegistryError        what is installed can't be read, changed or believed
    ├── RepositoryError      a place that plugins come from can't be reached or believed
    ├── AuditError           the sink failed: the operation does not happen
    └── InternalError        our bug
    CapError (not a CapwasmError)   what a guest sees

A foreign exception that leaves the public door is a bug with a test of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "CODES",
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
    "StackExhausted",
    "TableLimitExceeded",
    "ValueLimitExceeded",
    "VerificationError",
]

# Every stable code, with its one-line meaning.  docs/errors.md is made from this table, and a test
# fails when a code is raised that is not here, or is here and never raised.
CODES: dict[str, str] = {
    # artifact
    "artifact.unreadable": "The file can't be read or written.",
    "artifact.too-large": "The capsule is larger than the limit.",
    "artifact.pack": "The files can't be packed into a capsule, or the capsule can't be signed.",
    "artifact.not-a-component": "The code is not a binary WebAssembly component.",
    "artifact.compile": "The component is invalid or can't be compiled.",
    "artifact.compile-limit": "Compiling the component exceeded the time or memory allowed.",
    # build
    "build.toolchain": "A tool that the build needs is missing, or of another version.",
    "build.project": "The project's directory does not hold what a build needs.",
    "build.failed": "The component can't be made of its sources.",
    # verification
    "verify.no-trust-store": "No trust store, or one that holds no key: nothing can be trusted.",
    "verify.not-a-capsule": "The bytes do not begin with the capsule magic.",
    "verify.format": "The capsule's format version is not one this runtime knows.",
    "verify.truncated": "The capsule ends before its declared length.",
    "verify.envelope-too-large": "The envelope is longer than 64 KiB.",
    "verify.envelope": "The DSSE envelope is malformed.",
    "verify.payload-type": "The envelope signs another type of payload.",
    "verify.unsigned": "The envelope carries no signature.",
    "verify.untrusted-key": "None of the signatures is by a key of the trust store.",
    "verify.bad-signature": "A signature by a trusted key does not match.",
    "verify.threshold": "Fewer distinct trusted keys signed than the role requires.",
    "verify.key-expired": "The key is outside its validity period.",
    "verify.key-revoked": "The key was revoked.",
    "verify.key-scope": "The key may not sign for this plugin id.",
    "verify.key-role": "The key holds none of the roles that this load requires.",
    "verify.key-hint": "A signature names another key than the one that made it.",
    "verify.statement": "The in-toto statement is malformed.",
    "verify.predicate-type": "The statement's predicate is of another type.",
    "verify.schema": "The statement's schema is newer than this runtime knows.",
    "verify.digest": "The archive's size or digest is not the one signed.",
    "verify.zip": "The archive is not in the capsule's one canonical form.",
    "verify.member-missing": "A file that the statement lists is not in the archive.",
    "verify.member-extra": "The archive holds a file that the statement does not list.",
    "verify.member-duplicate": "The archive holds one name twice.",
    "verify.member-name": "A file's name is absolute, escapes, or is not canonical.",
    "verify.member-link": "The archive holds a link, a device or a special file.",
    "verify.member-digest": "A file's size or digest is not the one signed.",
    "verify.bomb": "The archive is compressed, or unpacks to more than allowed.",
    "verify.identity": "The manifest's id, version or kind is not the one signed.",
    "verify.rollback": "The version is older than the highest one accepted.",
    "verify.revoked": "The version, its content or its signer was revoked.",
    # keys and trust
    "trust.key": "A key file or key record is malformed.",
    "trust.weak-key": "The key is of an unsupported or weak type.",
    "trust.invalid": "The trust store has faults.",
    "trust.toml": "The trust store is not valid TOML, or is too large or too deep.",
    "trust.schema": "The trust store's schema is newer than this runtime knows.",
    "trust.unreadable": "A key file or the trust store can't be read or written.",
    "trust.permissions": "Others than its owner may read a private key, or write a trust store.",
    # manifest, policy, consent
    "manifest.invalid": "The manifest has faults.",
    "manifest.toml": "The manifest is not valid TOML, or is too large or too deep.",
    "manifest.schema": "The manifest's schema is newer than this runtime knows.",
    "manifest.unreadable": "The manifest's file can't be read.",
    "policy.invalid": "The policy has faults.",
    "policy.toml": "The policy is not valid TOML, or is too large or too deep.",
    "policy.schema": "The policy's schema is newer than this runtime knows.",
    "policy.unreadable": "The policy can't be read.",
    "policy.permissions": "Others than its owner may write the policy.",
    "consent.invalid": "A consent record is malformed.",
    "consent.store": "The consent store can't be read or written.",
    "consent.missing": "There is no such consent to withdraw, or nothing to consent to.",
    "grant.denied": "The plugin asks for more than the policy and the consent allow.",
    "grant.core-version": "The plugin needs another version of the core.",
    "grant.platform": "This platform can't enforce what the grant promises.",
    # link
    "link.undeclared-import": "The component imports an interface that its manifest doesn't declare.",
    "link.unknown-import": "The component imports something that this runtime does not offer.",
    "link.instantiate": "The component could not be instantiated.",
    # guest
    "guest.trap": "The plugin trapped.",
    "guest.closed": "The instance or plugin is closed.",
    "guest.busy": "The plugin can't be called in this state.",
    "guest.interrupted": "The call was interrupted by a kill, an eviction or a revocation.",
    "guest.no-such-export": "The plugin has no export of that name.",
    "limit.fuel": "The call used all its fuel.",
    "limit.deadline": "The call ran longer than its wall-clock limit.",
    "limit.memory": "The plugin asked for more memory than its limit.",
    "limit.table": "The plugin asked for more table elements than its limit.",
    "limit.stack": "The plugin's call stack is exhausted.",
    "limit.recursion": "Calls between host and plugin are nested too deep.",
    "limit.host-calls": "The call made more host calls than its limit.",
    "limit.output": "The call produced more output than its limit.",
    "limit.value": "A value that crosses the boundary is larger than its limit.",
    "limit.handles": "The plugin holds more handles than its limit.",
    "limit.net-bytes": "The call moved more bytes over the network than its limit.",
    "limit.concurrency": "More calls are under way than the plugin's limit.",
    "limit.capacity": "The runtime holds as many instances as it may.",
    # capabilities, audit, ours
    "capability.vault": "The secret vault can't be opened or written.",
    "capability.vault-key": "The vault's key can't be had, is malformed, or is not private.",
    "capability.no-secret": "The vault holds no secret of that name.",
    "capability.secret-revoked": "The secret was revoked; its value was destroyed.",
    "capability.kv": "The key-value store can't be opened or written.",
    "capability.bind": "A host path or name that the policy binds can't be used.",
    # registry and repositories
    "registry.unusable": "The registry or its store can't be read or written.",
    "registry.busy": "Another process has held the registry for too long; nothing changed.",
    "registry.foreign": "The file is no registry, is damaged, or is of a newer version.",
    "registry.tampered": "A row of the registry was changed, removed or put back by hand.",
    "registry.rolled-back": "The registry is an older copy of itself.",
    "registry.key": "The registry's key is missing or malformed.",
    "registry.permissions": "Others than its owner may write the registry, or read its key.",
    "registry.text": "A name or reason is missing, too long, or holds hidden characters.",
    "registry.unknown": "No such plugin or version is installed.",
    "registry.state": "The version's state does not allow this.",
    "registry.name-taken": "The plugin's id belongs to another signer.",
    "registry.version-taken": "This version was installed with other content.",
    "registry.bundle": "An installed capsule is missing from the store, or is not what it was.",
    "registry.pending": "The version waits for a person's decision.",
    "repository.unavailable": "A plugin repository can't be reached, or its answer can't be used.",
    "repository.url": "The address of a repository is not a URL that can be asked.",
    "repository.insecure": "Plain http to another machine, which the operator did not allow.",
    "repository.unreachable": "The server can't be reached.",
    "repository.timeout": "The server is too slow.",
    "repository.tls": "The server's certificate is not acceptable.",
    "repository.protocol": "The server's answer is not HTTP as it should be, or breaks off.",
    "repository.too-large": "The answer is larger than declared or allowed.",
    "repository.status": "The server has not got what it should give.",
    "repository.expired": "The repository's metadata are out of date.",
    "repository.rollback": "The metadata's version is not the one that it should be.",
    "repository.mismatch": "A file is not the one that was signed for.",
    "repository.signature": "Fewer keys signed the metadata than must.",
    "repository.metadata": "The repository's metadata are malformed, or contradict each other.",
    "repository.key": "The repository's root holds a weak key, or one key under two ids.",
    "repository.clock": "This machine's clock went back, so that nothing can be said to expire.",
    "repository.cache": "The cache of a repository can't be read or written.",
    "repository.busy": "Another process has held a repository for too long.",
    "repository.unknown": "No such repository, or it does not offer that.",
    "repository.changed": "The release is another file now.",
    "repository.identity": "A target holds another plugin or version than its name says.",
    "repository.config": "The list of repositories has faults.",
    "repository.root": "The root metadata of a repository can't be used.",
    "repository.release": "The release side's directory can't be used.",
    "repository.signer": "A key that must sign is not at hand, or does not sign.",
    "audit.sink": "The audit log can't be written: the operation was refused.",
    "audit.busy": "Another process writes this audit log.",
    "audit.tampered": "The audit log's chain does not verify.",
    "internal": "A defect of this runtime; the instance was discarded.",
}


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


class CapabilityError(CapwasmError):
    """An operator's command on a vault, store or binding failed."""

    default_code = "capability.bind"


class RegistryError(CapwasmError):
    """What is installed can't be read, changed or believed; the old state stands."""

    default_code = "registry.unusable"


class RepositoryError(CapwasmError):
    """A place that plugins come from can't be reached, or is not to be believed."""

    default_code = "repository.unavailable"


class AuditError(CapwasmError):
    """The audit sink failed; what was to be recorded did not happen."""

    default_code = "audit.sink"


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
