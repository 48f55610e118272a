from __future__ import annotations

import copy
import gc
import pickle

import pytest

from capwasm.caps.secrets import SecretBytes

VALUE = b"s3cr3t-value-0123456789"


@pytest.mark.case("SEC-10", "LOG-01")
def test_refuses_to_show_itself_in_any_way() -> None:
    secret = SecretBytes(VALUE)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{secret} {secret!r:>30}",
        repr([secret]),
        repr({"a": secret}),
        repr(secret.__class__.__dict__),
        str(KeyError(secret)),
    ]

    assert not any("s3cr3t" in text for text in shown)
    assert not hasattr(secret, "__dict__")


@pytest.mark.case("SEC-10")
@pytest.mark.parametrize(
    "leak",
    [
        *(lambda s, p=p: pickle.dumps(s, protocol=p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
        copy.copy,
        copy.deepcopy,
        bytes,
        iter,
        len,
        hash,
        memoryview,
        lambda s: s[0],
        lambda s: b"" + s,
        lambda s: s.__getstate__(),
    ],
)
def test_refuses_every_way_to_a_copy(leak) -> None:
    with pytest.raises(TypeError) as caught:
        leak(SecretBytes(VALUE))

    assert "s3cr3t" not in str(caught.value)


def test_allows_only_the_two_named_ways_out() -> None:
    secret = SecretBytes(VALUE)

    assert secret.expose() == VALUE
    assert secret.fill("Bearer {}") == "Bearer " + VALUE.decode()


def test_refuses_to_fill_twice_when_the_secret_looks_like_a_template() -> None:
    assert SecretBytes(b"{}{}").fill("A {} Z") == "A {}{} Z"


def test_allows_to_compare_without_showing() -> None:
    assert SecretBytes(VALUE) == SecretBytes(bytearray(VALUE))
    assert SecretBytes(VALUE) != SecretBytes(VALUE + b"x")
    assert SecretBytes(VALUE) != VALUE
    assert SecretBytes(VALUE).digest(b"k") == SecretBytes(VALUE).digest(b"k")
    assert SecretBytes(VALUE).digest(b"k") != SecretBytes(VALUE).digest(b"l")


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (b"abc", True),
        (b"a b~!", True),
        *((v, False) for v in (b"", b"a\r\nB: c", b"a\n", b"a\0", b"\x7f", b"\xe9", b" a", b"a ")),
        *((v, False) for v in (b"a\tb", "ü".encode(), b"\x1b[0m")),
    ],
)
@pytest.mark.case("NET-18")
def test_refuses_in_a_header_what_could_end_it(value: bytes, fits: bool) -> None:
    assert SecretBytes(value).fits_header() is fits


@pytest.mark.case("SEC-10")
def test_allows_to_wipe_by_hand_and_when_it_goes_away() -> None:
    source = bytearray(VALUE)
    secret = SecretBytes(source)
    inner = gc.get_referents(secret)
    kept = next(x for x in inner if isinstance(x, bytearray))
    assert kept == VALUE

    with secret:
        assert secret.expose() == VALUE
    assert kept == b""
    assert secret.expose() == b""
    secret.wipe()
    assert source == VALUE
