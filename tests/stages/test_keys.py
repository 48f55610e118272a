"""Keys: only strong ones, trusted by their bytes, kept where no one else reads them."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from capwasm.capsule.keys import ALGORITHMS, PrivateKey, PublicKey
from capwasm.errors import PolicyError

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
L = 2**252 + 27742317777372353535851937790883648493


def code_of(text: bytes | str) -> str:
    with pytest.raises(PolicyError) as caught:
        PublicKey.parse(text)
    return caught.value.code


def pem_of(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined,no-any-return]
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    k = D * a[0] * b[0] * a[1] * b[1] % P
    return (
        (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, P) % P,
        (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, P) % P,
    )


def times(n: int, point: tuple[int, int]) -> tuple[int, int]:
    out = (0, 1)
    while n:
        out = add(out, point) if n & 1 else out
        point, n = add(point, point), n >> 1
    return out


def point_at(y: int) -> tuple[int, int] | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    for factor in (1, pow(2, (P - 1) // 4, P)):
        x = pow(square, (P + 3) // 8, P) * factor % P
        if x * x % P == square:
            return x, y
    return None


def small_order_encodings() -> set[bytes]:
    """Every way to write a point whose order divides 8, found by arithmetic, not from a table."""
    points = {(0, 1)}
    for y in range(2, 40):
        if (point := point_at(y)) is not None:
            torsion = times(L, point)
            points |= {times(n, torsion) for n in range(8)}
    assert len(points) == 8
    ys = {y + P * k for _, y in points for k in (0, 1) if y + P * k < 2**255}
    return {(y | sign << 255).to_bytes(32, "little") for y in ys for sign in (0, 1)}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_allows_what_the_key_signed_and_refuses_all_else(algorithm: str) -> None:
    key = PrivateKey.generate(algorithm)  # type: ignore[arg-type]
    signature = key.sign(b"message")

    assert key.public.verify(signature, b"message")
    assert not key.public.verify(signature, b"messagf")
    assert not key.public.verify(signature[:-1], b"message")
    assert not key.public.verify(signature + b"\0", b"message")
    assert not key.public.verify(b"", b"message")
    assert not PrivateKey.generate(algorithm).public.verify(signature, b"message")  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_allows_pem_and_base64_as_the_same_key(algorithm: str) -> None:
    public = PrivateKey.generate(algorithm).public  # type: ignore[arg-type]

    assert PublicKey.parse(public.pem()) == public == PublicKey.parse(public.base64() + "\n")
    assert PublicKey.parse(public.pem()).key_id == public.key_id
    assert public.algorithm == algorithm
    assert public != PrivateKey.generate(algorithm).public  # type: ignore[arg-type]


@pytest.mark.case("SIG-11")
def test_refuses_a_signature_of_the_other_algorithm() -> None:
    edwards, nist = (PrivateKey.generate(a) for a in ALGORITHMS)

    assert not nist.public.verify(edwards.sign(b"m"), b"m")
    assert not edwards.public.verify(nist.sign(b"m"), b"m")


@pytest.mark.case("SIG-13")
@pytest.mark.parametrize("raw", sorted(small_order_encodings()), ids=bytes.hex)
def test_refuses_an_ed25519_point_of_small_order(raw: bytes) -> None:
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        return  # The library refuses it before we can.

    assert code_of(pem_of(key)) == "trust.weak-key"


@pytest.mark.case("SIG-14")
def test_refuses_an_ed25519_signature_whose_s_is_not_reduced() -> None:
    key = PrivateKey.generate()
    signature = key.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + L

    assert not key.public.verify(signature[:32] + s.to_bytes(32, "little"), b"m")


@pytest.mark.case("SIG-11")
@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        x25519.X25519PrivateKey.generate,
        lambda: dsa.generate_private_key(1024),
    ],
    ids=["rsa", "p-384", "secp256k1", "x25519", "dsa"],
)
def test_refuses_every_other_kind_of_key(make: object) -> None:
    private = make()  # type: ignore[operator]
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

    assert code_of(pem_of(private.public_key())) == "trust.weak-key"
    with pytest.raises(PolicyError) as caught:
        PrivateKey.parse(pem)
    assert caught.value.code == "trust.weak-key"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        "AAAA",
        "A" * 5000,
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        base64.b64encode(b"\x30" * 91).decode(),
        "\ud800",
    ],
)
def test_refuses_what_is_no_key(text: str) -> None:
    assert code_of(text) == "trust.key"


@given(st.binary(max_size=200) | st.text(max_size=100))
def test_refuses_noise_with_our_own_error(noise: bytes | str) -> None:
    assert code_of(noise) in {"trust.key", "trust.weak-key"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_allows_a_key_to_be_saved_and_loaded(
    algorithm: str, passphrase: bytes | None, tmp_path: Path
) -> None:
    key = PrivateKey.generate(algorithm)  # type: ignore[arg-type]
    key.save(tmp_path / "k", passphrase)

    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert PrivateKey.load(tmp_path / "k", passphrase).public == key.public
    assert [p.name for p in tmp_path.iterdir()] == ["k"]


@pytest.mark.parametrize(
    ("saved", "given_"), [(b"right", b"wrong"), (b"right", None), (None, b"needless")]
)
def test_refuses_a_passphrase_that_does_not_fit(
    saved: bytes | None, given_: bytes | None, tmp_path: Path
) -> None:
    PrivateKey.generate().save(tmp_path / "k", saved)

    with pytest.raises(PolicyError) as caught:
        PrivateKey.load(tmp_path / "k", given_)

    assert caught.value.code == "trust.key"
    assert "right" not in str(caught.value)


def test_refuses_an_empty_passphrase() -> None:
    with pytest.raises(ValueError, match="protects nothing"):
        PrivateKey.generate().pem(b"")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_refuses_a_private_key_that_others_may_read(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "k"
    PrivateKey.generate().save(path)
    path.chmod(mode)

    with pytest.raises(PolicyError, match="chmod 0600") as caught:
        PrivateKey.load(path)

    assert caught.value.code == "trust.permissions"


def test_refuses_to_overwrite_a_key_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "k"
    first, second = PrivateKey.generate(), PrivateKey.generate()
    first.save(path)

    with pytest.raises(PolicyError, match="exists already"):
        second.save(path)

    assert PrivateKey.load(path).public == first.public
    assert [p.name for p in tmp_path.iterdir()] == ["k"]
    second.save(path, overwrite=True)
    assert PrivateKey.load(path).public == second.public


def test_refuses_to_write_where_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        PrivateKey.generate().save(tmp_path / "none" / "k")

    assert caught.value.code == "trust.unreadable"


def test_refuses_to_show_the_secret_half() -> None:
    key = PrivateKey.generate()
    body = b"".join(key.pem().splitlines()[1:-1]).decode()

    assert body not in repr(key)
    assert "object at" not in repr(key)


def test_refuses_an_unknown_algorithm() -> None:
    with pytest.raises(ValueError, match="ecdsa-p256"):
        PrivateKey.generate("rsa")  # type: ignore[arg-type]


@pytest.mark.case("SIG-10")
def test_allows_a_key_id_that_is_the_digest_of_the_key() -> None:
    key = PrivateKey.generate().public
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.der)

    assert key.key_id == digest.finalize().hex()
