from __future__ import annotations

from pathlib import Path

import pytest

from capwasm.caps.secrets import MemoryVault, SecretClause, SecretHandle, Secrets, Vault, VaultKey
from capwasm.errors import CapabilityError, CapError
from tests.helpers import grant_of, in_call, open_context

from .test_handle import API, INJECT, REVEAL, VALUE, Redact, World


def test_allows_both_interfaces_as_the_wit_names_them() -> None:
    world = World(INJECT, REVEAL)
    store, reveal = world.secrets.serve(world.state)

    assert (store.name, reveal.name) == Secrets.interfaces
    assert dict(store.resources) == {"secret": SecretHandle}
    assert not reveal.resources
    with in_call() as call:
        handle = store.functions["get"]("acme-token")
        assert store.functions["[method]secret.name"](handle) == "acme-token"
        assert store.functions["[method]secret.lease-ms"](handle) == 5000
        assert call.host_fuel == 0
        assert reveal.functions["reveal"](handle) == VALUE
        assert call.host_fuel == len(VALUE)


def test_refuses_to_reveal_through_the_interface_what_may_only_be_sent() -> None:
    world = World(INJECT)
    _, reveal = world.secrets.serve(world.state)

    with in_call(), pytest.raises(CapError, match="denied"):
        reveal.functions["reveal"](world.handle())


@pytest.mark.parametrize("secrets", [Secrets(), Secrets(MemoryVault()), Secrets(redactor=Redact())])
def test_refuses_to_open_without_a_vault_and_a_redactor(secrets: Secrets) -> None:
    assert secrets.parse([REVEAL.to_toml()], "policy").clauses == (REVEAL,)
    secrets.revoke("acme-token", "nothing happens")
    secrets.reinstate("acme-token")

    with pytest.raises(CapabilityError) as caught:
        secrets.open(grant_of(REVEAL), open_context(Path("/nowhere")))
    assert caught.value.code == "capability.vault"


@pytest.mark.case("SEC-06")
def test_allows_the_encrypted_vault_end_to_end(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    vault = Vault.create(tmp_path / "vault", VaultKey.generate(tmp_path / "key"))
    vault.set("acme-token", VALUE)
    secrets = Secrets(vault, Redact())
    clause = SecretClause("acme-token", "inject", frozenset({API}), "X-Key: {}")
    handle = secrets.open(grant_of(clause), open_context(tmp_path)).get("acme-token")

    assert handle.inject(API) == ("X-Key", VALUE.decode())
    assert 3_590_000 < handle.lease_ms() <= 3_600_000
    secrets.revoke("acme-token", "leaked")
    with pytest.raises(CapError, match="closed"):
        handle.inject(API)
    assert Vault.open(tmp_path / "vault", VaultKey.load(tmp_path / "key")).revoked() == {
        "acme-token": "leaked"
    }
