"""Secrets that were left in a capsule: tokens by their shape, private keys, and random-looking values.

Whoever has the capsule has them, so they are lost already.  Evidence never shows one: its first four
characters and its length are enough to find it by.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from capwasm.review.finding import Finding, Severity

from .model import Context, Rule, Scanner
from .subject import Subject
from .texts import found_at

__all__ = ["SCANNERS"]

TOKEN: Final = Rule(
    "secrets.token",
    Severity.HIGH,
    "The capsule holds a token of a known service: whoever has the capsule has it.",
    "Withdraw the token, and take it from [[secret]].",
)
KEY: Final = Rule(
    "secrets.private-key",
    Severity.HIGH,
    "The capsule holds a private key: whoever has the capsule has it.",
    "Withdraw the key, and have the core hold the new one.",
)
ASSIGNED: Final = Rule(
    "secrets.assigned",
    Severity.MEDIUM,
    "A random-looking value stands beside a word such as key, token or password.",
    "If it is a secret, withdraw it, and take it from [[secret]].",
)
RANDOM: Final = Rule(
    "secrets.random-text",
    Severity.LOW,
    "A long text looks random, as keys and tokens do.",
    "If it is a secret, withdraw it, and take it from [[secret]].",
)

_UNDERLINE: Final = ord("_")
_B64: Final = rb"[A-Za-z0-9+/]"
_URL: Final = rb"[A-Za-z0-9_-]"
# What it is of, what each begins with, and its shape from there on.
_SHAPES: Final[tuple[tuple[str, tuple[bytes, ...], bytes], ...]] = (
    ("access key of AWS", (b"AKIA", b"ASIA"), rb"[A-Z2-7]{16}(?![A-Z0-9])"),
    ("token of GitHub", (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"), rb"[A-Za-z0-9]{36,251}"),
    ("token of GitHub", (b"github_pat_",), rb"[A-Za-z0-9_]{60,251}"),
    ("token of GitLab", (b"glpat-",), _URL + rb"{20,64}"),
    (
        "token of Slack",
        (b"xoxa-", b"xoxb-", b"xoxe-", b"xoxp-", b"xoxr-", b"xoxs-"),
        rb"[0-9A-Za-z-]{20,250}",
    ),
    ("key of Stripe", (b"sk_live_", b"rk_live_"), rb"[A-Za-z0-9]{20,250}"),
    ("key of a Google API", (b"AIza",), _URL + rb"{35}(?!" + _URL + rb")"),
    ("token of npm", (b"npm_",), rb"[A-Za-z0-9]{36}"),
    ("token of PyPI", (b"pypi-AgEIcHlwaS5vcmc",), _URL + rb"{40,250}"),
    ("key of SendGrid", (b"SG.",), _URL + rb"{22}\." + _URL + rb"{43}"),
    ("token of Docker", (b"dckr_pat_",), _URL + rb"{27}"),
    ("token of Hugging Face", (b"hf_",), rb"[A-Za-z]{34}"),
    ("key of an AI service", (b"sk-ant-", b"sk-proj-"), _URL + rb"{40,250}"),
    (
        "JSON web token",
        (b"eyJ",),
        _URL + rb"{17,2000}\.eyJ" + _URL + rb"{17,4000}\." + _URL + rb"{20,1000}",
    ),
    ("token of DigitalOcean", (b"dop_v1_",), rb"[a-f0-9]{64}"),
    ("token of Vault", (b"hvs.",), _URL + rb"{24,250}"),
    ("key of age", (b"AGE-SECRET-KEY-1",), rb"[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
)
_TOKENS: Final = tuple((what, heads, re.compile(rest)) for what, heads, rest in _SHAPES)
# The only one whose beginning is no word.
_TELEGRAM: Final = re.compile(rb"(?<![0-9])[0-9]{8,10}:AA" + _URL + rb"{33}(?!" + _URL + rb")")
# A header alone stands in every library that reads such files.
_PEM_HEAD: Final = b"-----BEGIN "
_PEM: Final = re.compile(
    rb"((?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?)-----(?:\\r|\\n|\s){1,4}"
    rb"(?:[A-Za-z-]{1,40}: [^\r\n]{0,200}\s{1,4}){0,8}[A-Za-z0-9+/=]{40}"
)
_NAMED: Final = re.compile(
    rb"(?:api[_-]?key|secret|token|passw(?:or)?d|passwd|auth[_-]?key|private[_-]?key|access[_-]?key)"
    rb"[\"']?\s{0,2}(?:=|:|=>|:=)\s{0,2}[\"']?([A-Za-z0-9+/_.=-]{20,200})",
    re.IGNORECASE,
)
_RUN: Final = re.compile(_B64 + rb"{40,512}={0,2}")
_NAMED_BITS: Final = 3.6
_RANDOM_BITS: Final = 4.7


def _shown(value: bytes) -> str:
    """What may be told of a secret."""
    return f"{value[:4].decode('ascii', 'replace')}… ({len(value)} characters)"


def _bits(value: bytes) -> float:
    """Shannon entropy, in bits a character."""
    total = len(value)
    return -sum(n / total * math.log2(n / total) for n in Counter(value).values())


def _found(data: bytes) -> Iterator[tuple[int, bytes, str]]:
    """Where a token stands, the token, and what it is of."""
    for what, heads, rest in _TOKENS:
        for at, head in found_at(data, heads):
            # After a letter or digit it would be the middle of something else.
            if at and (data[at - 1 : at].isalnum() or data[at - 1] == _UNDERLINE):
                continue
            if (found := rest.match(data, at + len(head))) is not None:
                yield at, data[at : found.end()], what
    for colon, _ in found_at(data, (b":AA",)):
        near = max(0, colon - 11)
        if (found := _TELEGRAM.search(data, near, colon + 40)) is not None:
            yield found.start(), found[0], "token of Telegram"


def _tokens(subject: Subject, _context: Context) -> Iterator[Finding]:
    for text in subject.texts:
        for at, token, what in _found(text.data):
            if _bits(token) > 3.0:  # not a shape of x's in somebody's example
                message = f"The capsule holds what looks like a {what}: whoever has it has that."
                yield TOKEN.at(text.place(at), _shown(token), message=message)
        for at, head in found_at(text.data, (_PEM_HEAD,)):
            if (found := _PEM.match(text.data, at + len(head))) is not None:
                yield KEY.at(text.place(at), found[1].decode())


def _random(subject: Subject, _context: Context) -> Iterator[Finding]:
    for text in subject.texts:
        if text.name == "LICENSE" or text.name.startswith(("wit/", "sbom")):
            continue
        known: set[int] = set()
        for found in _NAMED.finditer(text.data):
            value = found[1]
            if _bits(value) >= _NAMED_BITS and _mixed(value):
                known.update(range(found.start(1), found.end(1)))
                yield ASSIGNED.at(text.place(found.start(1)), _shown(value))
        for found in _RUN.finditer(text.data):
            value = found[0]
            before = text.around(found.start(), 80, 0)
            if (
                found.start() in known
                or b"PRIVATE KEY" in before
                or _bits(value) < _RANDOM_BITS
                or not _mixed(value)
            ):
                continue
            if not _ordered(value) and not _wordy(value) and not any(True for _ in _found(value)):
                yield RANDOM.at(text.place(found.start()), _shown(value))


def _mixed(value: bytes) -> bool:
    """Whether letters of both cases and digits are spread through it, as a generator does."""
    digits = sum(48 <= b <= 57 for b in value)
    upper = sum(65 <= b <= 90 for b in value)
    lower = sum(97 <= b <= 122 for b in value)
    return min(upper, lower) * 8 >= len(value) and digits * 16 >= len(value)


def _wordy(value: bytes) -> bool:
    """Whether it holds words: of 60 random characters one in twenty does."""
    runs = [len(run) for run in re.findall(rb"[a-z]{5,}", value)]
    return len(runs) > 1 or max(runs, default=0) > 8


def _ordered(value: bytes) -> bool:
    """Whether it is an alphabet: each character follows the one before it."""
    return sum(b - a == 1 for a, b in itertools.pairwise(value)) * 4 > len(value)


SCANNERS: Final = (
    Scanner("tokens", _tokens, (TOKEN, KEY), seconds=60.0),
    Scanner("random", _random, (ASSIGNED, RANDOM), seconds=60.0),
)
