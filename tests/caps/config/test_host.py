from __future__ import annotations

from pathlib import Path

import pytest

from capwasm.caps.config import Config, ConfigClause
from tests.helpers import grant_of, in_call, open_context


def served(*clauses: ConfigClause, deny=()):
    grant, ctx = grant_of(*clauses, deny=deny), open_context(Path("/nowhere"))
    config = Config()
    [interface] = config.serve(config.open(grant, ctx))
    assert interface.name in Config.interfaces
    return interface.functions, grant, ctx


def test_allows_granted_settings_sorted() -> None:
    functions, _, ctx = served(
        ConfigClause("b", "2"), ConfigClause("a", "1"), ConfigClause("open"), ConfigClause("e", "")
    )
    with in_call() as call:
        assert functions["all"]() == [("a", "1"), ("b", "2"), ("e", "")]
        assert functions["get"]("a") == "1"
        assert functions["get"]("e") == ""
        assert functions["get"]("open") is None
        assert call.host_fuel > 0
    assert not ctx.recorder.events


@pytest.mark.case("SEC-01")
@pytest.mark.parametrize("key", ["PATH", "HOME", "", "A", "a\0", "x" * 10_000])
def test_refuses_what_was_not_granted_the_environment_too(key: str) -> None:
    functions, _, ctx = served(ConfigClause("a", "1"))

    with in_call():
        assert functions["get"](key) is None
    [event] = ctx.recorder.events
    assert (event.kind, event.verdict) == ("config", "denied")
    assert len(event.target) <= 64


@pytest.mark.case("LIFE-05")
def test_refuses_a_setting_from_the_moment_it_is_revoked() -> None:
    functions, grant, _ = served(ConfigClause("a", "1"), ConfigClause("b", "2"))
    with in_call():
        assert functions["get"]("a") == "1"
        next(g for g in grant.allow if g.clause.key == "a").lease.revoke("test")
        assert functions["get"]("a") is None
        assert functions["all"]() == [("b", "2")]


def test_refuses_a_denied_key_whatever_its_value() -> None:
    functions, _, _ = served(
        ConfigClause("a", "1"), ConfigClause("b", "2"), deny=(ConfigClause("a", "other"),)
    )
    with in_call():
        assert functions["get"]("a") is None
        assert functions["all"]() == [("b", "2")]
