"""The demo, step by step; each step checks for itself that what it tells is what happened.

This is also the example of how to embed the runtime.  The lines that matter are few::

    with Runtime.open(home, core_version="1.0.0") as runtime:
        plugin = runtime.load(capsule)
        report = plugin.exports.api.forecast("Oslo").unwrap()
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capwasm import (
    CapwasmError,
    Err,
    Event,
    FuelExhausted,
    GrantDeniedError,
    Limits,
    Ok,
    Plugin,
    PrivateKey,
    Runtime,
    verify_log,
)
from capwasm.home import Home

from . import owner
from .publisher import flip_a_bit, publish
from .service import WeatherService

__all__ = ["Step", "play"]

SECRET = "weather-token"  # noqa: S105  its name
NOT_GRANTED = {"snoop-file": "/etc/passwd", "snoop-url": "https://collector.example/?all=of-it"}


@dataclass(frozen=True)
class Step:
    """What came of one step: in words, and as data.

    Attributes:
        name: its scene in `story.STORY`.   told: what was seen.
        ok: whether that is what was to be seen.
        facts: the same as data.
    """

    name: str
    told: str
    ok: bool
    facts: dict[str, Any] = field(default_factory=dict)


def play(root: Path, agree: Callable[[Sequence[owner.Permission]], bool]) -> Iterator[Step]:
    """Play the demo in the directory `root`.

    Args:
        root: an empty directory; everything is below it.
        agree: shown what the plugin asks for; says whether to consent to it.

    Raises:
        GrantDeniedError: `agree` said no.
    """
    token = secrets.token_urlsafe(24)
    home, reports = Home(root / "home"), root / "reports"
    home.root.mkdir(mode=0o700)
    reports.mkdir()
    with WeatherService(token) as service:
        key = PrivateKey.generate()
        capsule = publish(root / "demo.weather-1.0.0.capsule", key, service.origin)
        yield Step("sign", capsule.name, ok=True, facts={"key-id": key.public.key_id})

        owner.trust(home, key.public)
        owner.allow(home, service.origin, reports)
        owner.keep_secret(home, SECRET, token)
        events: list[Event] = []
        with Runtime.open(home.root, core_version="1.0.0", hook=events.append) as runtime:
            yield from _prove(runtime, capsule)
            allowed = runtime.policy.patterns
            told = f"policy.toml allows something to {', '.join(allowed)} and to no other plugin"
            yield Step("policy", told, ok=allowed == ("demo.weather",))
            yield _load_too_early(runtime, capsule)
            if agree(owner.asked(runtime, capsule)):
                owner.consent(runtime, capsule, who="whoever runs the demo")
            plugin = runtime.load(capsule)  # raises, with the lines that would allow it, if not
            granted = list(plugin.grants.by_capability)
            told = f"{plugin.name} may use: {', '.join(granted)}"
            yield Step("load", told, ok=len(granted) == 6, facts={"granted": granted})

            yield from _use(plugin, service, reports)
            yield from _snoop(plugin, events)
            yield _revoke(runtime, plugin, service)
            yield _limit(runtime, capsule)
        yield _audit(home, kept_in_clear=_files_with(token, root))


def _prove(runtime: Runtime, capsule: Path) -> Iterator[Step]:
    """Its bytes are what a trusted key signed; with one bit changed they are not."""
    artifact = runtime.verify(capsule)
    names = [signer.name for signer in artifact.signers]
    told = f"signed by {', '.join(names)}, who is trusted for demo.* alone"
    yield Step("verify", told, ok=names == ["demo-publisher"], facts={"digest": artifact.digest})
    code = "it was accepted"
    try:
        runtime.load(flip_a_bit(capsule.read_bytes())).close()
    except CapwasmError as exc:
        code = exc.code
    yield Step("tamper", f"error {code}", ok=code == "verify.digest", facts={"code": code})


def _load_too_early(runtime: Runtime, capsule: Path) -> Step:
    """The policy allows it, but nobody has agreed."""
    missing: list[str] = []
    try:
        runtime.load(capsule).close()
    except GrantDeniedError as exc:
        missing = [fault.path for fault in exc.faults]
    told = f"{len(missing)} permissions wait for a person: {', '.join(missing)}"
    return Step("deny-by-default", told, ok=bool(missing), facts={"missing": missing})


def _use(plugin: Plugin, service: WeatherService, reports: Path) -> Iterator[Step]:
    """What it was granted works."""
    api = plugin.exports.api
    for name, cached in (("fetch", False), ("cache", True)):
        result = api.forecast("Oslo")
        sent = [visit.authorized for visit in service.visits]
        ok = isinstance(result, Ok) and result.value.cached is cached and sent == [True]
        yield Step(name, _told(result), ok, {"requests": len(sent)})
    text = (reports / "oslo.txt").read_text(encoding="utf-8").strip()
    yield Step("write", f"oslo.txt: {text}", ok=text.startswith("Oslo: -3.5"), facts={"text": text})


def _snoop(plugin: Plugin, events: Sequence[Event]) -> Iterator[Step]:
    """What it was not granted does not work, and is on record."""
    api = plugin.exports.api
    for name, kind, attempt in (
        ("snoop-file", "fs", api.snoop_file),
        ("snoop-url", "net", api.snoop_url),
    ):
        target = NOT_GRANTED[name]
        result = attempt(target)
        last = [e for e in events if e.kind == kind and e.verdict == "denied"][-1:]
        # An address in the record would mean that the name had been looked up.
        quiet = bool(last) and "address" not in last[0].details
        facts = {"target": target, "recorded": [e.reason for e in last]}
        yield Step(name, _told(result), result == Err("denied") and quiet, facts)


def _revoke(runtime: Runtime, plugin: Plugin, service: WeatherService) -> Step:
    """Without the secret the service turns the plugin away."""
    runtime.revoke_secret(SECRET, "leaked, says the demo")
    result = plugin.exports.api.forecast("Bergen")
    sent = [visit.authorized for visit in service.visits]
    ok = isinstance(result, Err) and not any(sent[1:])
    told = f'no token was sent: "{result.error}"' if isinstance(result, Err) else _told(result)
    return Step("revoke", told, ok, {"authorized": sent})


def _limit(runtime: Runtime, capsule: Path) -> Step:
    """A call that uses more than its limits ends, and nothing else does."""
    code = "there was no limit"
    with runtime.load(capsule, at_most=Limits(fuel=10_000)) as plugin:
        try:
            plugin.exports.api.forecast("Oslo")
        except FuelExhausted as exc:
            code = exc.code
    return Step("limit", f"error {code}", ok=code == "limit.fuel", facts={"code": code})


def _audit(home: Home, kept_in_clear: list[str]) -> Step:
    """The log holds together, and the secret is in no file at all."""
    report = verify_log(home.audit, keys=[PrivateKey.load(home.audit_key).public])
    verdict = "intact" if report.ok else f"{report.count} problems"
    told = f"{verdict}: {report.records} records, the token in none of them"
    facts = {**report.to_dict(), "files-with-the-token": kept_in_clear}
    return Step("audit", told, report.ok and report.signed > 0 and not kept_in_clear, facts)


def _told(result: Any) -> str:
    """What a call came back with, in one line."""
    if isinstance(result, Err):
        return f'the plugin was told "{result.error}"'
    report = result.value
    if isinstance(report, str):
        return f"it got through: {report[:40]}"
    source = " (from its store)" if report.cached else ""
    return f"{report.city}: {report.celsius:.1f} degrees, {report.summary}{source}"


def _files_with(token: str, root: Path) -> list[str]:
    """The files below `root` that hold the token in the clear."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return [path.name for path in files if token.encode() in path.read_bytes()]
