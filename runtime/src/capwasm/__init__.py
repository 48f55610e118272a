"""capwasm: run signed, untrusted plugins with only the handles they were granted.

::

    from capwasm import Runtime

    with Runtime.open("/etc/myapp/plugins", core_version="1.4.0") as runtime:
        with runtime.load("acme-weather-1.2.0.capsule") as weather:
            print(weather.call("forecast", "Oslo").unwrap())

All public names are here; what is imported from a module below may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .capability import Capability, Grant, Interface, OpenContext, Parsed, Risk
    from .caps import standard_capabilities
    from .capsule.artifact import Artifact, read_artifact
    from .capsule.keys import PrivateKey, PublicKey
    from .capsule.pack import sign_capsule
    from .capsule.trust import TrustStore
    from .capsule.verify import VerifiedArtifact
    from .command import run_command
    from .engine.crossing import GuestResource
    from .engine.pool import Capacity
    from .errors import (
        ArtifactError,
        AuditError,
        BuildError,
        CallInterrupted,
        CapabilityError,
        CapError,
        CapwasmError,
        ConsentError,
        DeadlineExceeded,
        Fault,
        FuelExhausted,
        GrantDeniedError,
        GuestCrashed,
        GuestError,
        GuestTrap,
        InstanceClosedError,
        InternalError,
        LimitExceeded,
        LinkError,
        ManifestError,
        MemoryLimitExceeded,
        PolicyError,
        RevocationError,
        ShimError,
        VerificationError,
    )
    from .events import Event, Recorder
    from .grants.consent import ConsentRecord, Subject
    from .grants.consent_store import ConsentStore
    from .grants.manifest import Manifest, parse_manifest
    from .grants.policy import Policy
    from .grants.resolve import Grants, resolve
    from .handles import Handle
    from .lattice import Clause, ClauseSet
    from .lifecycle import Lifecycle, LifecycleKind
    from .limits import Limits
    from .plugin import Plugin
    from .record.audit import AuditLog, verify_log
    from .record.metrics import Metrics, serve_metrics
    from .record.recorders import Recorders
    from .record.redact import Redactor
    from .runtime import Runtime
    from .session import Session
    from .values import Err, Ok, Result, ResultError, Some, Variant

# Where each name lives.  Loaded when first used: a core that only catches `CapwasmError` should not
# pay for cryptography, and `import capwasm` is to stay a matter of milliseconds.
_HOME = {
    "Artifact": "capsule.artifact",
    "ArtifactError": "errors",
    "AuditError": "errors",
    "AuditLog": "record.audit",
    "BuildError": "errors",
    "CallInterrupted": "errors",
    "CapError": "errors",
    "Capability": "capability",
    "CapabilityError": "errors",
    "Capacity": "engine.pool",
    "CapwasmError": "errors",
    "Clause": "lattice",
    "ClauseSet": "lattice",
    "ConsentError": "errors",
    "ConsentRecord": "grants.consent",
    "ConsentStore": "grants.consent_store",
    "DeadlineExceeded": "errors",
    "Err": "values",
    "Event": "events",
    "Fault": "errors",
    "FuelExhausted": "errors",
    "Grant": "capability",
    "GrantDeniedError": "errors",
    "Grants": "grants.resolve",
    "GuestCrashed": "errors",
    "GuestError": "errors",
    "GuestResource": "engine.crossing",
    "GuestTrap": "errors",
    "Handle": "handles",
    "InstanceClosedError": "errors",
    "Interface": "capability",
    "InternalError": "errors",
    "Lifecycle": "lifecycle",
    "LifecycleKind": "lifecycle",
    "LimitExceeded": "errors",
    "Limits": "limits",
    "LinkError": "errors",
    "Manifest": "grants.manifest",
    "ManifestError": "errors",
    "MemoryLimitExceeded": "errors",
    "Metrics": "record.metrics",
    "Ok": "values",
    "OpenContext": "capability",
    "Parsed": "capability",
    "Plugin": "plugin",
    "Policy": "grants.policy",
    "PolicyError": "errors",
    "PrivateKey": "capsule.keys",
    "PublicKey": "capsule.keys",
    "Recorder": "events",
    "Recorders": "record.recorders",
    "Redactor": "record.redact",
    "Result": "values",
    "ResultError": "values",
    "RevocationError": "errors",
    "Risk": "capability",
    "Runtime": "runtime",
    "Session": "session",
    "ShimError": "errors",
    "Some": "values",
    "Subject": "grants.consent",
    "TrustStore": "capsule.trust",
    "Variant": "values",
    "VerificationError": "errors",
    "VerifiedArtifact": "capsule.verify",
    "parse_manifest": "grants.manifest",
    "read_artifact": "capsule.artifact",
    "resolve": "grants.resolve",
    "run_command": "command",
    "serve_metrics": "record.metrics",
    "sign_capsule": "capsule.pack",
    "standard_capabilities": "caps",
    "verify_log": "record.audit",
}

__all__ = [
    "Artifact",
    "ArtifactError",
    "AuditError",
    "AuditLog",
    "BuildError",
    "CallInterrupted",
    "CapError",
    "Capability",
    "CapabilityError",
    "Capacity",
    "CapwasmError",
    "Clause",
    "ClauseSet",
    "ConsentError",
    "ConsentRecord",
    "ConsentStore",
    "DeadlineExceeded",
    "Err",
    "Event",
    "Fault",
    "FuelExhausted",
    "Grant",
    "GrantDeniedError",
    "Grants",
    "GuestCrashed",
    "GuestError",
    "GuestResource",
    "GuestTrap",
    "Handle",
    "InstanceClosedError",
    "Interface",
    "InternalError",
    "Lifecycle",
    "LifecycleKind",
    "LimitExceeded",
    "Limits",
    "LinkError",
    "Manifest",
    "ManifestError",
    "MemoryLimitExceeded",
    "Metrics",
    "Ok",
    "OpenContext",
    "Parsed",
    "Plugin",
    "Policy",
    "PolicyError",
    "PrivateKey",
    "PublicKey",
    "Recorder",
    "Recorders",
    "Redactor",
    "Result",
    "ResultError",
    "RevocationError",
    "Risk",
    "Runtime",
    "Session",
    "ShimError",
    "Some",
    "Subject",
    "TrustStore",
    "Variant",
    "VerificationError",
    "VerifiedArtifact",
    "parse_manifest",
    "read_artifact",
    "resolve",
    "run_command",
    "serve_metrics",
    "sign_capsule",
    "standard_capabilities",
    "verify_log",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'capwasm' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
