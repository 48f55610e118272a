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
from .texts import texts

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

_B64: Final = rb"[A-Za-z0-9+/]"
_URL: Final = rb"[A-Za-z0-9_-]"
# What is before a shape must not be a letter or digit: it would be the middle of something else.
_SHAPES: Final[tuple[tuple[str, bytes], ...]] = (
    ("access key of AWS", rb"(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Z0-9])"),
    ("token of GitHub", rb"gh[pousr]_[A-Za-z0-9]{36,251}"),
    ("token of GitHub", rb"github_pat_[A-Za-z0-9_]{60,251}"),
    ("token of GitLab", rb"glpat-" + _URL + rb"{20,64}"),
    ("token of Slack", rb"xox[abeprs]-[0-9A-Za-z-]{20,250}"),
    ("key of Stripe", rb"[rs]k_live_[A-Za-z0-9]{20,250}"),
    ("key of a Google API", rb"AIza" + _URL + rb"{35}(?!" + _URL + rb")"),
    ("token of npm", rb"npm_[A-Za-z0-9]{36}"),
    ("token of PyPI", rb"pypi-AgEIcHlwaS5vcmc" + _URL + rb"{40,250}"),
    ("key of SendGrid", rb"SG\." + _URL + rb"{22}\." + _URL + rb"{43}"),
    ("token of Docker", rb"dckr_pat_" + _URL + rb"{27}"),
    ("token of Hugging Face", rb"hf_[A-Za-z]{34}"),
    ("key of an AI service", rb"sk-(?:ant-|proj-)" + _URL + rb"{40,250}"),
    ("token of Telegram", rb"[0-9]{8,10}:AA" + _URL + rb"{33}(?!" + _URL + rb")"),
    (
        "JSON web token",
        rb"eyJ" + _URL + rb"{17,2000}\.eyJ" + _URL + rb"{17,4000}\." + _URL + rb"{20,1000}",
    ),
    ("token of DigitalOcean", rb"dop_v1_[a-f0-9]{64}"),
    ("token of Vault", rb"hvs\." + _URL + rb"{24,250}"),
)
_TOKENS: Final = tuple((what, re.compile(rb"(?<![A-Za-z0-9_])" + shape)) for what, shape in _SHAPES)
# A header alone stands in every library that reads such files.
_PEM: Final = re.compile(
    rb"-----BEGIN ((?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?)-----(?:\\r|\\n|\s){1,4}"
    rb"(?:[A-Za-z-]{1,40}: [^\r\n]{0,200}\s{1,4}){0,8}[A-Za-z0-9+/=]{40}"
)
_AGE: Final = re.compile(rb"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}")
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


def _tokens(subject: Subject, _context: Context) -> Iterator[Finding]:
    for text in texts(subject):
        for what, shape in _TOKENS:
            for found in shape.finditer(text.data):
                if _bits(found[0]) > 3.0:  # not a shape of x's in somebody's example
                    message = (
                        f"The capsule holds what looks like a {what}: whoever has it has that."
                    )
                    yield TOKEN.at(text.place(found.start()), _shown(found[0]), message=message)
        for found in (*_PEM.finditer(text.data), *_AGE.finditer(text.data)):
            kind = found[1].decode() if found.re is _PEM else "AGE-SECRET-KEY"
            yield KEY.at(text.place(found.start()), kind)


def _random(subject: Subject, _context: Context) -> Iterator[Finding]:
    for text in texts(subject):
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
            before = bytes(text.data[max(0, found.start() - 80) : found.start()])
            if (
                found.start() in known
                or b"PRIVATE KEY" in before
                or _bits(value) < _RANDOM_BITS
                or not _mixed(value)
            ):
                continue
            if (
                not _ordered(value)
                and not _wordy(value)
                and not any(shape.search(value) for _, shape in _TOKENS)
            ):
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
