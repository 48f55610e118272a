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
    from .artifact import Artifact, read_artifact
    from .audit import AuditLog, verify_log
    from .capability import Capability, Grant, Interface, OpenContext, Parsed, Risk
    from .caps import standard_capabilities
    from .consent import ConsentRecord, Subject
    from .consent_store import ConsentStore
    from .engine.crossing import GuestResource
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
        GuestError,
        GuestTrap,
        InstanceClosedError,
        InternalError,
        LimitExceeded,
        LinkError,
        ManifestError,
        MemoryLimitExceeded,
        PolicyError,
        VerificationError,
    )
    from .events import Event, Recorder
    from .grants import Grants, resolve
    from .handles import Handle
    from .keys import PrivateKey, PublicKey
    from .lattice import Clause, ClauseSet
    from .limits import Limits
    from .manifest import Manifest, parse_manifest
    from .metrics import Metrics, serve_metrics
    from .pack import sign_capsule
    from .plugin import Plugin
    from .policy import Policy
    from .recorders import Recorders
    from .redact import Redactor
    from .runtime import Runtime
    from .session import Session
    from .trust import TrustStore
    from .values import Err, Ok, Result, ResultError, Some, Variant
    from .verify import VerifiedArtifact

# Where each name lives.  Loaded when first used: a core that only catches `CapwasmError` should not
# pay for cryptography, and `import capwasm` is to stay a matter of milliseconds.
_HOME = {
    "Artifact": "artifact",
    "ArtifactError": "errors",
    "AuditError": "errors",
    "AuditLog": "audit",
    "BuildError": "errors",
    "CallInterrupted": "errors",
    "CapError": "errors",
    "Capability": "capability",
    "CapabilityError": "errors",
    "CapwasmError": "errors",
    "Clause": "lattice",
    "ClauseSet": "lattice",
    "ConsentError": "errors",
    "ConsentRecord": "consent",
    "ConsentStore": "consent_store",
    "DeadlineExceeded": "errors",
    "Err": "values",
    "Event": "events",
    "Fault": "errors",
    "FuelExhausted": "errors",
    "Grant": "capability",
    "GrantDeniedError": "errors",
    "Grants": "grants",
    "GuestError": "errors",
    "GuestResource": "engine.crossing",
    "GuestTrap": "errors",
    "Handle": "handles",
    "InstanceClosedError": "errors",
    "Interface": "capability",
    "InternalError": "errors",
    "LimitExceeded": "errors",
    "Limits": "limits",
    "LinkError": "errors",
    "Manifest": "manifest",
    "ManifestError": "errors",
    "MemoryLimitExceeded": "errors",
    "Metrics": "metrics",
    "Ok": "values",
    "OpenContext": "capability",
    "Parsed": "capability",
    "Plugin": "plugin",
    "Policy": "policy",
    "PolicyError": "errors",
    "PrivateKey": "keys",
    "PublicKey": "keys",
    "Recorder": "events",
    "Recorders": "recorders",
    "Redactor": "redact",
    "Result": "values",
    "ResultError": "values",
    "Risk": "capability",
    "Runtime": "runtime",
    "Session": "session",
    "Some": "values",
    "Subject": "consent",
    "TrustStore": "trust",
    "Variant": "values",
    "VerificationError": "errors",
    "VerifiedArtifact": "verify",
    "parse_manifest": "manifest",
    "read_artifact": "artifact",
    "resolve": "grants",
    "serve_metrics": "metrics",
    "sign_capsule": "pack",
    "standard_capabilities": "caps",
    "verify_log": "audit",
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
    "GuestError",
    "GuestResource",
    "GuestTrap",
    "Handle",
    "InstanceClosedError",
    "Interface",
    "InternalError",
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
    "Risk",
    "Runtime",
    "Session",
    "Some",
    "Subject",
    "TrustStore",
    "Variant",
    "VerificationError",
    "VerifiedArtifact",
    "parse_manifest",
    "read_artifact",
    "resolve",
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
