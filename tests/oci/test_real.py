"""Against Debian's docker-registry: what is pushed comes back, byte for byte."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.verify import verify
from capwasm.oci.client import Client
from capwasm.oci.layout import (
    ATTESTATION_TYPE,
    CAPSULE_TYPE,
    INDEX_TYPE,
    MANIFEST_TYPE,
    digest_of,
)
from capwasm.oci.pull import pull
from capwasm.oci.push import push
from capwasm.oci.reference import Reference
from capwasm.oci.settings import Credentials, RegistrySettings
from tests.capsules import FILES, STORE
from tests.repository.simulator import capsule

from .servers import CAPSULE, CREDENTIALS, REAL, USER, code_of, needs_real

pytestmark = needs_real


def at(authority: str, rest: str = ":1.2.0") -> Reference:
    return Reference.parse(f"oci://{authority}/acme/weather{rest}")


def client(reference: Reference, actions: str = "pull,push", **words: Any) -> Client:
    return Client(reference, RegistrySettings(host=reference.authority), actions=actions, **words)


def get(url: str, accept: str) -> bytes:
    """What another tool would get."""
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        data: bytes = answer.read()
    return data


def test_there_and_back(real: str) -> None:
    sent = push(CAPSULE, at(real), client(at(real)))
    assert (sent.before, sent.uploaded) == (None, 5)
    found = pull(at(real), client(at(real), "pull"))
    assert found.capsule == CAPSULE
    assert found.reference == sent.reference
    assert found.identity.file_name == "acme.weather-1.2.0.capsule"
    assert verify(read_artifact(found.capsule), STORE).id == "acme.weather"
    exact = at(real, f"@{sent.reference.digest}")
    assert pull(exact, client(exact, "pull")).capsule == CAPSULE


def test_a_push_is_idempotent(real: str) -> None:
    first = push(CAPSULE, at(real), client(at(real)))
    again = push(CAPSULE, at(real), client(at(real)))
    assert (again.reference, again.referrers) == (first.reference, first.referrers)
    assert (again.before, again.uploaded) == (first.reference.digest, 0)
    assert len(client(at(real)).referrers(first.reference.digest or "")) == 2


def test_other_tools_find_a_component_of_one_layer_and_its_attestation(real: str) -> None:
    sent = push(CAPSULE, at(real), client(at(real)))
    base = f"http://{real}/v2/acme/weather"
    manifest = json.loads(get(f"{base}/manifests/1.2.0", MANIFEST_TYPE))
    assert manifest["config"]["mediaType"] == "application/vnd.wasm.config.v0+json"
    [layer] = manifest["layers"]
    assert layer["mediaType"] == "application/wasm"
    assert get(f"{base}/blobs/{layer['digest']}", "*/*") == FILES["plugin.wasm"]
    config = json.loads(get(f"{base}/blobs/{manifest['config']['digest']}", "*/*"))
    assert config["layerDigests"] == [layer["digest"]]
    assert (config["architecture"], config["os"]) == ("wasm", "wasip2")
    assert set(config["component"]) == {"imports", "exports"}
    # By the tag that stands for the referrers' API, which this server has not.
    digest = sent.reference.digest or ""
    index = json.loads(get(f"{base}/manifests/{digest.replace(':', '-')}", INDEX_TYPE))
    kinds = {m["artifactType"]: m["digest"] for m in index["manifests"]}
    assert set(kinds) == {CAPSULE_TYPE, ATTESTATION_TYPE}
    attestation = json.loads(get(f"{base}/manifests/{kinds[ATTESTATION_TYPE]}", MANIFEST_TYPE))
    assert attestation["subject"]["digest"] == digest
    envelope = get(f"{base}/blobs/{attestation['layers'][0]['digest']}", "*/*")
    assert json.loads(envelope)["payloadType"] == "application/vnd.in-toto+json"


def test_what_is_kept_when_the_registry_collects_what_has_no_tag(real: str, tmp_path: Path) -> None:
    sent = push(CAPSULE, at(real), client(at(real)))
    assert REAL is not None
    config = str(tmp_path / "real/config.yml")
    for words in (["garbage-collect"], ["garbage-collect", "--delete-untagged"]):
        subprocess.run([REAL, *words, config], check=True, capture_output=True)
    assert pull(at(real), client(at(real))).capsule == CAPSULE
    assert len(client(at(real)).referrers(sent.reference.digest or "")) == 2


def test_a_tag_is_moved_only_by_who_says_so(real: str) -> None:
    first = push(CAPSULE, at(real), client(at(real)))
    other = capsule("1.3.0")
    assert code_of(lambda: push(other, at(real), client(at(real)))) == "oci.tag-taken"
    assert pull(at(real), client(at(real))).capsule == CAPSULE
    moved = push(other, at(real), client(at(real)), move=True)
    assert moved.before == first.reference.digest
    assert pull(at(real), client(at(real))).capsule == other
    # The digest is what it was.
    exact = first.reference
    assert pull(exact, client(exact)).capsule == CAPSULE


def test_what_is_not_there(real: str) -> None:
    assert code_of(lambda: pull(at(real), client(at(real)))) == "oci.not-found"
    nothing = at(real, "@" + digest_of(b""))
    assert code_of(lambda: pull(nothing, client(nothing))) == "oci.not-found"


def test_with_a_login(real_with_login: str) -> None:
    where = at(real_with_login)
    push(CAPSULE, where, client(where, credentials=CREDENTIALS))
    assert pull(where, client(where, "pull", credentials=CREDENTIALS)).capsule == CAPSULE


@pytest.mark.parametrize("action", [push, pull])
def test_without_a_login_or_with_a_false_one(real_with_login: str, action: Any) -> None:
    where = at(real_with_login)
    words = (CAPSULE, where) if action is push else (where,)
    assert code_of(lambda: action(*words, client(where))) == "oci.credentials"
    false = Credentials(USER, "guessed")
    assert code_of(lambda: action(*words, client(where, credentials=false))) == "oci.denied"
