"""The words of the demo: what each step shows, and why that matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["STORY", "Scene", "Verdict"]

Verdict = Literal["done", "allowed", "denied", "refused"]


@dataclass(frozen=True, slots=True)
class Scene:
    """One step in words; `verdict` is how it must end."""

    verdict: Verdict
    title: str
    why: str


STORY: Final = {
    "sign": Scene(
        "done",
        "A publisher signs a plugin",
        "One signature covers every byte: the code, and what it asks for.",
    ),
    "verify": Scene(
        "allowed",
        "The runtime verifies it",
        "Nothing is parsed, let alone run, before its bytes are proven.",
    ),
    "tamper": Scene(
        "refused",
        "The same file with one bit flipped",
        "Every refusal has a stable code, which a program can act on.",
    ),
    "policy": Scene(
        "done",
        "The operator wrote a policy: one service, one secret, one directory",
        "What no rule allows is denied.  The plugin can't widen it, only ask.",
    ),
    "deny-by-default": Scene(
        "denied",
        "Load it, before anybody agreed to what it asks",
        "The policy is the most; within it, a person agrees to each thing.",
    ),
    "load": Scene(
        "allowed",
        "Load it, with consent",
        "These handles are all it has: no sockets, no environment, no files.",
    ),
    "fetch": Scene(
        "allowed",
        'Call forecast("Oslo"): it asks a web service that wants a token',
        "The host put the token into the request; the plugin never held it.",
    ),
    "cache": Scene(
        "allowed",
        'Call forecast("Oslo") again',
        "A key-value store of its own, with a quota; no request was sent.",
    ),
    "write": Scene(
        "allowed",
        "It wrote a report into the one directory that it was granted",
        "To the plugin it is /reports; where that really is, it can't know.",
    ),
    "snoop-file": Scene(
        "denied",
        "It tries to read /etc/passwd",
        "It learns that one word, and not even whether there is such a file.",
    ),
    "snoop-url": Scene(
        "denied",
        "It tries to send data to collector.example",
        "Refused before the name was looked up, so nothing left this machine.",
    ),
    "revoke": Scene(
        "denied",
        'The operator revokes the token; then forecast("Bergen")',
        "In force from the next use on, also within a call that is running.",
    ),
    "limit": Scene(
        "refused",
        "The same plugin, with fuel for 10,000 instructions",
        "Fuel, memory, time and bytes are bounded: it can't hang its host.",
    ),
    "audit": Scene(
        "done",
        "All of it stands in the audit log",
        "Each record holds the hash of the one before: a change would show.",
    ),
}
