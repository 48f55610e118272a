"""The words of the sandbox: what a spec and a report take, and everything that they refuse."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm_shim.layers import (
    DEFAULT_REQUIRED,
    File,
    Layer,
    LayerError,
    Limits,
    Report,
    Spec,
)

NATIVE = Spec("native", files=(File("plugin.so"), File("tool", 0o555)))
EXEC = Spec(
    "exec",
    argv=("/usr/bin/convert", "-", "png:-"),
    env=(("LANG", "C"),),
    binds=("/usr", "/lib64"),
    executables=("/usr/bin/convert", "/lib64/ld-linux-x86-64.so.2"),
)
COMPONENT = Spec("component", limits=Limits(threads=8, cpu_percent=50))


@pytest.mark.parametrize("spec", [NATIVE, EXEC, COMPONENT], ids=lambda spec: spec.kind)
def test_allows_what_was_written(spec: Spec) -> None:
    assert Spec.from_map(spec.to_map()) == spec


def test_requires_all_but_what_some_machines_never_have() -> None:
    assert set(Layer) - DEFAULT_REQUIRED == {
        Layer.OWN_USER,
        Layer.USER_NAMESPACE,
        Layer.CGROUP_MEMORY,
        Layer.CGROUP_PIDS,
        Layer.CGROUP_CPU,
    }
    assert NATIVE.layers == tuple(Layer)


def places(map_: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Every place in a map that holds a value."""
    found: list[tuple[Any, Any]] = []
    stack: list[Any] = [map_]
    while stack:
        each = stack.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each))
        found += [(each, key) for key in keys]
        stack += [each[key] for key in keys if isinstance(each[key], dict | list)]
    return found


WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.binary(max_size=3),
    st.just(-1),
    st.just(2**64),
    st.just("a\0b"),
    st.just("\ud800"),
    st.just([[]]),
    st.just({"": 1}),
)


@given(st.sampled_from([NATIVE, EXEC, COMPONENT]), st.integers(0, 10**6), WRONG)
def test_refuses_a_value_of_another_type_anywhere(spec: Spec, where: int, wrong: Any) -> None:
    map_ = copy.deepcopy(spec.to_map())
    holders = places(map_)
    holder, key = holders[where % len(holders)]
    holder[key] = wrong

    with pytest.raises(ValueError, match=r"wanted|must be|layers|kind"):
        Spec.from_map(map_)


@given(st.sampled_from([NATIVE, EXEC]), st.integers(0, 10**6))
def test_refuses_a_map_in_which_a_key_is_missing_or_unknown(spec: Spec, where: int) -> None:
    for change in ("missing", "unknown"):
        map_ = copy.deepcopy(spec.to_map())
        maps = [map_, map_["limits"]]
        chosen = maps[where % 2]
        if change == "missing":
            del chosen[sorted(chosen)[where % len(chosen)]]
        else:
            chosen["uid"] = 0
        with pytest.raises(ValueError, match="its keys must be"):
            Spec.from_map(map_)


REFUSED: list[dict[str, Any]] = [
    {"kind": "wasm"},
    {"layers": ["seccomp", "seccomp"]},
    {"layers": ["sec-comp"]},
    {"required": ["everything"]},
    {"files": [["../plugin.so", 0o444]]},
    {"files": [["..", 0o444]]},
    {"files": [["", 0o444]]},
    {"files": [["plugin.so", 0o644]]},
    {"files": [["plugin.so", 0o4555]]},
    {"files": [["plugin.so", 0o444], ["plugin.so", 0o555]]},
    {"files": [["plugin.so"]]},
    {"files": [["x" * 65, 0o444]]},
    {"files": [[f"f{n}", 0o444] for n in range(257)]},
    {"argv": ["/bin/sh"]},
    {"binds": ["/usr"]},
    {"env": [["LD_PRELOAD", "/x.so"]]},
    {"executables": ["/bin/sh"]},
    {"limits": Spec("native").to_map()["limits"] | {"memory": 0}},
    {"limits": Spec("native").to_map()["limits"] | {"files": 2}},
    {"limits": Spec("native").to_map()["limits"] | {"threads": True}},
    {"limits": Spec("native").to_map()["limits"] | {"processes": 2}},
    {"limits": Spec("native").to_map()["limits"] | {"cpu_seconds": 2**63}},
]
REFUSED_OF_EXEC: list[dict[str, Any]] = [
    {"argv": []},
    {"argv": ["/bin/other"]},
    {"argv": ["convert"]},
    {"binds": ["usr"]},
    {"binds": ["/usr/../etc"]},
    {"binds": ["/"]},
    {"binds": ["//usr"]},
    {"binds": ["/usr/"]},
    {"executables": ["bin/sh", "/usr/bin/convert"]},
    {"env": [["A=B", "c"]]},
    {"env": [["", "c"]]},
    {"env": [["A", "b", "c"]]},
]


@pytest.mark.parametrize(
    ("spec", "change"),
    [*((NATIVE, change) for change in REFUSED), *((EXEC, change) for change in REFUSED_OF_EXEC)],
    ids=[str(n) for n in range(len(REFUSED) + len(REFUSED_OF_EXEC))],
)
def test_refuses_what_makes_no_sense(spec: Spec, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+: |a native has no"):
        Spec.from_map(spec.to_map() | change)


def test_reports_cross_as_maps_and_nothing_else_does() -> None:
    report = Report((Layer.SECCOMP,), {Layer.LANDLOCK_NET: "Landlock ABI 3"})

    assert Report.from_map(report.to_map()) == report
    for wrong in (
        None,
        [],
        {"applied": []},
        {"applied": ["x"], "missing": {}},
        {"applied": [], "missing": {"x": ""}},
        {"applied": [], "missing": {"seccomp": 1}},
    ):
        with pytest.raises(ValueError, match=r"report|missing|layers"):
            Report.from_map(wrong)


def test_an_error_names_the_layer_and_the_kernels_word() -> None:
    refused = LayerError(Layer.NET_NAMESPACE, 1, "unshare: Operation not permitted")

    assert str(refused) == "net-namespace: unshare: Operation not permitted (EPERM)"
    assert str(LayerError(Layer.SECCOMP, 0, "no libseccomp")) == "seccomp: no libseccomp"
