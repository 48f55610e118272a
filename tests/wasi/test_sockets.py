"""Sockets: linked, so that standard libraries load, and never more than that."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import capwasm.wasi
from capwasm.errors import CapError, GuestTrap
from capwasm.wasi._refuse import Refused
from tests.helpers import in_call

from .served import Wasi

SOCKETS = {
    f"{name}.{function}"
    for name, interface in Wasi().interfaces.items()
    for function in interface.functions
    if name.startswith("sockets/")
}
HARMLESS = {"sockets/instance-network.instance-network", "sockets/network.network-error-code"}


@pytest.mark.case("NET-26", "NET-27")
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_refuses_to_make_a_socket(kind: str, family: str) -> None:
    wasi = Wasi()

    for _ in range(3):
        with pytest.raises(CapError) as caught:
            wasi[f"sockets/{kind}-create-socket.create-{kind}-socket"](family)

    assert caught.value.word == "access-denied"
    [event] = wasi.events
    assert event.action == f"wasi:sockets/{kind}-create-socket.create-{kind}-socket"


@pytest.mark.case("NET-26")
def test_refuses_to_resolve_a_name_even_with_the_network_handle() -> None:
    wasi = Wasi()
    network = wasi["sockets/instance-network.instance-network"]()

    for name in ("localhost", "example.com", "169.254.169.254"):
        with pytest.raises(CapError) as caught:
            wasi["sockets/ip-name-lookup.resolve-addresses"](network, name)
        assert caught.value.word == "access-denied"


@pytest.mark.case("NET-26", "NET-27")
@pytest.mark.parametrize("function", sorted(SOCKETS - HARMLESS))
def test_refuses_every_other_function_of_sockets(function: str) -> None:
    wasi = Wasi({"fs": None})

    with in_call(), pytest.raises((CapError, GuestTrap)) as caught:
        wasi[function](object(), object())

    assert isinstance(wasi[function], Refused)
    assert getattr(caught.value, "word", "access-denied") == "access-denied"
    assert [e.action for e in wasi.events] == [f"wasi:{function}"]


def test_allows_asking_whether_an_error_is_the_networks_and_it_never_is() -> None:
    assert Wasi()["sockets/network.network-error-code"](object()) is None


@pytest.mark.case("NET-26", "SEC-01")
def test_refuses_to_import_any_power_into_wasi() -> None:
    power = {"os", "socket", "ssl", "subprocess", "pathlib", "shutil", "random", "secrets"}
    for file in Path(capwasm.wasi.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert power.isdisjoint(a.name.partition(".")[0] for a in node.names), file.name
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert str(node.module).partition(".")[0] not in power, file.name
            assert not (isinstance(node, ast.Name) and node.id == "open"), file.name
