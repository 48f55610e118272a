"""The way of an identity, by hand: statement, a signer outside, verify; and who does not take it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from capwasm import Runtime
from capwasm.capsule.envelope import PAYLOAD_TYPE, pae
from capwasm.cli import capwasm
from tests.capsules import FILES, KEY, forged, signed
from tests.sigstores import ISSUER, SUBJECT, Sigstore

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sigstore") is None,
    reason="bundles are verified by an extra: pip install 'capwasm[sigstore]'",
)
WORLD = Sigstore()
CAPSULE = "acme.weather-1.2.0.capsule"


def data_of(*args: str, code: int = 0) -> Any:
    result = CliRunner().invoke(capwasm, [*args, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that trusts an identity, and an unsigned capsule in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, data in FILES.items():
        path = tmp_path / "weather" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    data_of("pack", "weather")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "root.json").write_bytes(WORLD.trusted_root())
    (home / "trust.toml").write_text(
        f'schema = 1\n[sigstore]\ntrusted-root = "root.json"\n[[identity]]\nname = "acme ci"\n'
        f'issuer = "{ISSUER}"\nsubject = "{SUBJECT}"\nroles = ["publisher"]\nids = ["acme.*"]\n'
    )
    return home


def sign_outside(statement: Path, to: Path) -> None:
    """What `sigstore sign` does with a file."""
    kind, _, rest = statement.read_bytes().removeprefix(b"DSSEv1 28 ").partition(b" ")
    payload = rest.partition(b" ")[2]
    assert kind.decode() == PAYLOAD_TYPE
    assert pae(PAYLOAD_TYPE, payload) == statement.read_bytes()
    to.write_text(json.dumps(WORLD.bundle(payload)))


def test_allows_a_capsule_that_an_identity_signed(home: Path) -> None:
    verify = ("verify", CAPSULE, "--home", str(home))
    assert data_of(*verify, code=1)["code"] == "verify.unsigned"

    made = data_of("statement", CAPSULE)
    sign_outside(Path(made["statement"]), Path("elsewhere.json"))
    assert data_of(*verify, "--bundle", "elsewhere.json")["signers"][0]["name"] == "acme ci"

    Path("elsewhere.json").rename(made["bundle"])
    assert data_of(*verify)["signers"][0]["name"] == "acme ci"
    assert data_of("inspect", CAPSULE, "--home", str(home))["verified"] is True
    # `--bundle` is the whole of it: what lies beside the file is not looked at then.
    Path("bad.json").write_text("{}")
    assert data_of(*verify, "--bundle", "bad.json", code=1)["code"] == "verify.bundle"


def test_the_statement_is_the_same_whoever_signed(home: Path) -> None:
    made = [Path("a.capsule"), Path("b.capsule")]
    made[0].write_bytes(Path(CAPSULE).read_bytes())
    made[1].write_bytes(signed(KEY))
    one, other = (Path(data_of("statement", str(path))["statement"]) for path in made)
    assert one.read_bytes() == other.read_bytes()


def test_refuses_to_write_the_statement_of_what_it_does_not_hold(home: Path) -> None:
    lie = Path("lie.capsule")
    lie.write_bytes(forged(b"PK\x05\x06" + bytes(18)))
    assert data_of("statement", str(lie), code=1)["code"] == "verify.member-missing"
    assert not Path("lie.capsule.statement").exists()


def test_a_runtime_reads_the_bundle_beside_a_path_and_none_for_bytes(home: Path) -> None:
    made = data_of("statement", CAPSULE)
    sign_outside(Path(made["statement"]), Path(made["bundle"]))
    with Runtime.open(home, core_version="1.0.0") as runtime:
        assert [s.name for s in runtime.verify(CAPSULE).signers] == ["acme ci"]
        with pytest.raises(Exception, match="not signed"):
            runtime.verify(Path(CAPSULE).read_bytes())
        Path(made["bundle"]).write_text("{}")
        with pytest.raises(Exception, match="bundle"):
            runtime.verify(CAPSULE)


def test_the_registry_refuses_and_says_why(home: Path) -> None:
    made = data_of("statement", CAPSULE)
    sign_outside(Path(made["statement"]), Path(made["bundle"]))
    refused = data_of("install", CAPSULE, "--home", str(home), code=1)
    assert refused["code"] == "verify.unsigned"
    assert "keeps no Sigstore bundles" in refused["faults"][-1]["message"]
    assert data_of("list", "--home", str(home)) in ([], {"plugins": []})
