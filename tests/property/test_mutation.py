"""Change any one byte of a signed capsule, anywhere, in any way: it does not verify."""

from __future__ import annotations

import random

import pytest

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.container import split
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.trust import TrustStore
from capwasm.capsule.verify import verify
from capwasm.errors import VerificationError
from tests.capsules import KEY, signed, trusted

OTHER = PrivateKey.generate("ecdsa-p256")
# Two signers of which one would do: a fault in either must still refuse the capsule.
STORE = TrustStore((trusted(KEY), trusted(OTHER, name="other")))
CAPSULE = signed(KEY, OTHER)
HEADER = 16
ENVELOPE_END = HEADER + len(split(CAPSULE).envelope)


REGIONS = {
    "header": range(HEADER),
    "envelope": range(HEADER, ENVELOPE_END),
    "archive": range(ENVELOPE_END, len(CAPSULE)),
}


def verdict(data: bytes) -> str:
    """The code it is refused with; any other exception, and success, fails the test."""
    try:
        verify(read_artifact(data), STORE)
    except VerificationError as exc:
        return exc.code
    pytest.fail("a changed capsule was verified")


def test_allows_the_capsule_itself() -> None:
    assert len(verify(read_artifact(CAPSULE), STORE).signers) == 2


@pytest.mark.case("SIG-01", "SIG-07", "SIG-08", "PER-03")
@pytest.mark.parametrize(("region", "span"), REGIONS.items(), ids=REGIONS)
def test_refuses_every_flip_insertion_and_deletion(region: str, span: range) -> None:
    chance = random.Random(region)
    for at in span:
        byte = CAPSULE[at]
        before, after = CAPSULE[:at], CAPSULE[at + 1 :]
        for new in {
            byte ^ (1 << chance.randrange(8)),
            byte ^ chance.randrange(1, 256),
            byte ^ 0x20,
        }:
            verdict(before + bytes([new]) + after)
        verdict(before + bytes([chance.randrange(256)]) + CAPSULE[at:])
        verdict(before + after)


@pytest.mark.case("SIG-01", "PER-03")
def test_refuses_every_truncation() -> None:
    for end in range(len(CAPSULE)):
        verdict(CAPSULE[:end])


@pytest.mark.case("SIG-01")
def test_refuses_bytes_appended() -> None:
    for tail in (b"\0", b"\n", b"PK\x05\x06" + bytes(18), CAPSULE):
        verdict(CAPSULE + tail)


@pytest.mark.case("SIG-01")
def test_refuses_thousands_of_random_splices() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        a, b = sorted(chance.randrange(len(CAPSULE) + 1) for _ in range(2))
        patch = chance.randbytes(chance.randrange(9))
        data = CAPSULE[:a] + patch + CAPSULE[b if b - a < 9 else a + 1 :]
        if data != CAPSULE:
            verdict(data)
