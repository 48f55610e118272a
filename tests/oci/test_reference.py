"""References: one spelling, one meaning."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.errors import RepositoryError
from capwasm.oci.reference import Reference

from .servers import code_of

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "authority", "name", "tag", "digest"),
    [
        ("oci://ghcr.io/acme/weather:1.2.0", "ghcr.io", "acme/weather", "1.2.0", None),
        ("oci://GHCR.io/w:v1", "ghcr.io", "w", "v1", None),
        ("oci://localhost:5000/a.b__c-d/e:_", "localhost:5000", "a.b__c-d/e", "_", None),
        (f"oci://[::1]:5000/w@sha256:{HEX}", "[::1]:5000", "w", None, f"sha256:{HEX}"),
        (f"oci://[::1]/w:1@sha256:{HEX}", "[::1]", "w", "1", f"sha256:{HEX}"),
        ("oci://10.0.0.1:443/w:1", "10.0.0.1:443", "w", "1", None),
    ],
)
def test_allows(text: str, authority: str, name: str, tag: str | None, digest: str | None) -> None:
    found = Reference.parse(text)
    assert (found.authority, found.name, found.tag, found.digest) == (authority, name, tag, digest)
    assert Reference.parse(str(found)) == found
    assert found.target == (digest or tag)


@pytest.mark.parametrize(
    "text",
    [
        "ghcr.io/acme/weather:1",
        "OCI://ghcr.io/w:1",
        "https://ghcr.io/w:1",
        "oci://ghcr.io/acme/weather",  # no tag is guessed
        "oci://ghcr.io/:1",
        "oci://ghcr.io:1",
        "oci:///w:1",
        "oci://user:pw@ghcr.io/w:1",
        "oci://ghcr.io@evil.example/w:1",
        "oci://ghcr.io/Acme/w:1",
        "oci://ghcr.io/a//w:1",
        "oci://ghcr.io/a/../w:1",
        "oci://ghcr.io/a___b:1",
        "oci://ghcr.io/-a:1",
        "oci://ghcr.io/w:",
        "oci://ghcr.io/w:.hidden",
        "oci://ghcr.io/w:1/x",
        "oci://ghcr.io/w:1?x",
        "oci://ghcr.io/w:1\n",
        "oci://ghcr.io/w:" + "1" * 129,
        f"oci://ghcr.io/w@sha256:{HEX.upper()}",
        f"oci://ghcr.io/w@sha256:{HEX}0",
        f"oci://ghcr.io/w@sha512:{HEX}{HEX}",
        f"oci://ghcr.io/w:1@sha256:{HEX}@sha256:{HEX}",
        "oci://ghcr.io:0/w:1",
        "oci://ghcr.io:/w:1",
        "oci://ghcr.io:99999/w:1",
        "oci://0x7f.1/w:1",
        "oci://ghcr.io\\evil/w:1",
        "oci://ghcr.io/" + "a" * 400 + ":1",
    ],
)
def test_refuses(text: str) -> None:
    assert code_of(lambda: Reference.parse(text)) == "oci.reference"


@given(st.text(alphabet="aZ0:/@._-[]%\\ é\n", max_size=40))
def test_whatever_is_taken_is_spelled_in_one_way(text: str) -> None:
    with contextlib.suppress(RepositoryError):
        found = Reference.parse(f"oci://{text}")
        assert Reference.parse(str(found)) == found


def test_what_is_local() -> None:
    for text in ("localhost", "127.0.0.1:5000", "[::1]", "127.9.9.9"):
        assert Reference.parse(f"oci://{text}/w:1").is_local
    for text in ("localhost.example", "10.0.0.1", "ghcr.io"):
        assert not Reference.parse(f"oci://{text}/w:1").is_local
