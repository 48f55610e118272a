from __future__ import annotations

import os
import pickle
import sys
import threading
import traceback
from pathlib import Path

import pytest

from capwasm.caps.secrets import MemoryVault, SecretClause, SecretHandle, Secrets
from capwasm.errors import AuditError, CapabilityError, CapError, InternalError
from capwasm.handles import HandleTable
from capwasm.record.redact import Redactor
from tests.helpers import ListRecorder, grant_of, in_call, open_context

API, OTHER = "https://api.acme.com", "https://evil.com"
HEADER = "Authorization: Bearer {}"
VALUE = b"s3cr3t-value-0123456789"
INJECT = SecretClause("acme-token", "inject", frozenset({API}), HEADER, 1000)
REVEAL = SecretClause("acme-token", "reveal", lease_ms=5000)


class Redact:
    """Remembers what it was told, and when."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.known: list[tuple[str, bytes]] = []
        self.log = log if log is not None else []

    def register(self, name: str, value: bytes) -> bool:
        self.known.append((name, value))
        self.log.append("registered")
        return True


class World:
    """A vault, a redactor, a clock, and an instance with its secrets."""

    def __init__(self, *clauses: SecretClause, deny=(), values=None, **context) -> None:
        self.time = 100.0
        self.vault = MemoryVault({"acme-token": VALUE} if values is None else values)
        self.redact = Redact()
        self.secrets = Secrets(self.vault, self.redact, lambda: self.time)
        self.grant = grant_of(*clauses, deny=deny)
        self.ctx = open_context(Path("/nowhere"), **context)
        self.state = self.secrets.open(self.grant, self.ctx)
        self.events = getattr(self.ctx.recorder, "events", [])

    def handle(self) -> SecretHandle:
        return self.state.get("acme-token")


def word(operation, *args) -> str:
    with in_call(), pytest.raises(CapError) as caught:
        operation(*args)
    assert "s3cr3t" not in repr(caught.value) + caught.value.detail
    return caught.value.word


# -- inject and reveal -------------------------------------------------------------------------------


@pytest.mark.case("SEC-07")
def test_allows_the_host_to_send_a_secret_that_the_guest_never_sees() -> None:
    world = World(INJECT)
    handle = world.handle()

    assert handle.inject(API) == ("Authorization", "Bearer " + VALUE.decode())
    assert handle.inject("HTTPS://API.acme.com:443") == handle.inject(API)
    assert word(handle.reveal) == "denied"
    assert (handle.get_name(), handle.lease_ms()) == ("acme-token", 1000)


@pytest.mark.case("SEC-05", "SEC-09", "NET-10")
@pytest.mark.parametrize(
    "origin",
    [
        *(OTHER, "http://api.acme.com", "https://api.acme.com:8443", "https://acme.com", ""),
        *("https://api.acme.com.evil.com", "https://evil-api.acme.com", "https://api.acme.com."),
        *(
            "https://api.acme.com@evil.com",
            "https://api.acme.com/",
            "https://api.acme.com\n",
            "x" * 999,
        ),
    ],
)
def test_refuses_to_send_it_anywhere_else(origin: str) -> None:
    world = World(INJECT)
    handle = world.handle()

    assert word(handle.inject, origin) == "denied"
    assert handle.injects_into(origin) is False
    assert not world.redact.known
    [event] = world.events
    assert (event.kind, event.verdict, event.action) == ("secret", "denied", "inject")


def test_allows_to_ask_first_without_leaving_a_trace() -> None:
    world = World(INJECT)

    assert world.handle().injects_into(API) is True
    assert not world.events
    assert not world.redact.known


def test_refuses_to_send_what_may_only_be_seen() -> None:
    world = World(REVEAL)
    handle = world.handle()

    assert handle.reveal() == VALUE
    assert word(handle.inject, API) == "denied"


def test_refuses_to_send_it_while_no_header_is_granted() -> None:
    world = World(SecretClause("acme-token", "inject", frozenset({API})))

    assert word(world.handle().inject, API) == "denied"


@pytest.mark.case("NET-18")
@pytest.mark.parametrize("value", [b"a\r\nX-Evil: 1", b"a\n", b"\0", b" a", "ü".encode(), b"a\tb"])
def test_refuses_to_send_a_secret_that_would_break_the_header(value: bytes) -> None:
    world = World(INJECT, REVEAL, values={"acme-token": value})
    handle = world.handle()

    assert word(handle.inject, API) == "denied"
    assert world.events[-1].reason == "the secret can't stand in a header"
    assert handle.reveal() == value


@pytest.mark.parametrize("name", ["", "ACME-TOKEN", "acme-token ", "other", "x" * 10_000])
def test_refuses_a_name_that_was_not_granted(name: str) -> None:
    world = World(INJECT, values={"acme-token": VALUE, "other": b"o" * 9})

    assert word(world.state.get, name) == "denied"
    assert len(world.events[0].target) <= 64


def test_refuses_a_granted_name_that_is_not_there_alike() -> None:
    world = World(INJECT, values={})

    assert word(world.state.get, "acme-token") == "denied"


def test_refuses_what_a_deny_rule_names_and_allows_the_rest() -> None:
    world = World(INJECT, REVEAL, deny=(REVEAL,))
    handle = world.handle()

    assert word(handle.reveal) == "denied"
    assert handle.inject(API)
    both = World(INJECT, deny=(SecretClause("acme-token", "inject"),))
    assert word(both.state.get, "acme-token") == "denied"


@pytest.mark.case("SEC-01", "SEC-02")
def test_refuses_to_take_a_secret_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("acme-token", "ACME_TOKEN", "ACME-TOKEN", "CAPWASM_SECRET_ACME_TOKEN"):
        monkeypatch.setenv(name, "from the environment")
    world = World(INJECT, REVEAL, values={})

    assert word(world.state.get, "acme-token") == "denied"
    handle = SecretHandle("acme-token", world.state)
    assert word(handle.inject, API) == "denied"
    assert word(handle.reveal) == "denied"


# -- leases and revocation ---------------------------------------------------------------------------


@pytest.mark.case("SEC-06")
def test_refuses_each_use_once_its_lease_is_over() -> None:
    world = World(INJECT, REVEAL)
    handle = world.handle()
    world.time += 0.999
    assert handle.inject(API)
    assert handle.lease_ms() == 4001

    world.time += 0.001
    assert word(handle.inject, API) == "closed"
    assert handle.injects_into(API) is False
    assert handle.reveal() == VALUE
    assert handle.alive
    world.time += 4
    assert word(handle.reveal) == "closed"
    assert handle.lease_ms() == 0
    assert not handle.alive
    assert world.handle().inject(API)


@pytest.mark.case("SEC-06", "LIFE-05")
def test_refuses_the_next_use_once_one_clause_is_revoked() -> None:
    world = World(INJECT, REVEAL)
    handle = world.handle()
    next(g for g in world.grant.allow if g.clause == INJECT).lease.revoke("test")

    assert word(handle.inject, API) == "closed"
    assert handle.reveal() == VALUE
    world.grant.allow[1].lease.revoke("test")
    assert word(handle.reveal) == "closed"
    assert word(world.state.get, "acme-token") == "closed"


@pytest.mark.case("SEC-06", "LIFE-05", "LIFE-06")
def test_refuses_a_revoked_secret_to_every_plugin_at_once() -> None:
    world = World(INJECT, REVEAL)
    ctx = open_context(Path("/nowhere"), plugin_id="acme.other", instance=2)
    other = world.secrets.open(grant_of(INJECT), ctx).get("acme-token")
    handle = world.handle()
    world.secrets.revoke("acme-token", "leaked")

    assert word(handle.inject, API) == "closed"
    assert word(handle.reveal) == "closed"
    assert word(other.inject, API) == "closed"
    assert word(world.state.get, "acme-token") == "closed"
    assert (handle.lease_ms(), handle.alive) == (0, False)
    assert "leaked" in world.events[0].reason

    # A new value alone does not bring it back, and the old handles stay dead when it is.
    world.vault.set("acme-token", b"new-value-123")
    assert word(world.state.get, "acme-token") == "closed"
    world.secrets.reinstate("acme-token")
    assert world.handle().reveal() == b"new-value-123"
    assert word(handle.reveal) == "closed"
    assert word(other.inject, API) == "closed"


def test_refuses_from_the_next_use_on_what_another_process_revoked() -> None:
    world = World(INJECT)
    handle = world.handle()
    assert handle.inject(API)
    world.vault.revoke("acme-token", "leaked elsewhere")

    assert word(handle.inject, API) == "closed"


def test_allows_a_rotation_to_take_effect_at_the_next_use() -> None:
    world = World(INJECT)
    handle = world.handle()
    assert handle.inject(API)[1] == "Bearer " + VALUE.decode()
    world.vault.set("acme-token", b"rotated-value-1")

    assert handle.inject(API)[1] == "Bearer rotated-value-1"
    assert [value for _, value in world.redact.known] == [VALUE, b"rotated-value-1"]


def test_allows_to_revoke_a_name_that_the_vault_does_not_hold() -> None:
    world = World(INJECT, values={})
    world.secrets.revoke("acme-token", "in advance")
    world.vault.set("acme-token", VALUE)

    assert word(world.state.get, "acme-token") == "closed"


@pytest.mark.case("SEC-06", "PER-02")
def test_refuses_its_use_even_when_the_vault_cannot_be_written() -> None:
    world = World(INJECT)
    handle = world.handle()

    def fail(_name: str, _reason: str) -> None:
        raise CapabilityError("disk full", code="capability.vault")

    world.vault.revoke = fail  # type: ignore[method-assign]
    with pytest.raises(CapabilityError):
        world.secrets.revoke("acme-token", "leaked")
    assert word(handle.inject, API) == "closed"


def test_refuses_a_dropped_handle() -> None:
    world = World(INJECT, REVEAL)
    handle = world.handle()
    handle.close()

    assert word(handle.inject, API) == "closed"
    assert word(handle.reveal) == "closed"
    assert handle.lease_ms() == 0


@pytest.mark.case("LIFE-05", "SEC-06")
def test_refuses_within_a_running_call_what_another_thread_revokes() -> None:
    world = World(INJECT)
    handle = world.handle()
    used, revoked = threading.Event(), threading.Event()

    def revoke() -> None:
        used.wait(10)
        world.secrets.revoke("acme-token", "leaked")
        revoked.set()

    thread = threading.Thread(target=revoke)
    thread.start()
    with in_call():
        handle.inject(API)
        used.set()
        revoked.wait(10)
        with pytest.raises(CapError, match="closed"):
            handle.inject(API)
    thread.join()


@pytest.mark.case("LIFE-05")
def test_refuses_a_use_that_the_revocation_overtook() -> None:
    world = World(INJECT)
    handle = world.handle()
    get = world.vault.get

    def slow(name: str):
        value = get(name)
        world.secrets.revoke("acme-token", "while the vault answered")
        return value

    world.vault.get = slow  # type: ignore[method-assign]
    assert word(handle.inject, API) == "closed"


@pytest.mark.case("LIFE-05", "SEC-06")
@pytest.mark.parametrize("use", ["inject", "reveal"])
@pytest.mark.parametrize("how", ["revoked", "run out"])
def test_refuses_a_use_whose_grant_ended_while_the_vault_answered(use: str, how: str) -> None:
    world = World(INJECT, REVEAL)
    handle = world.handle()
    get = world.vault.get

    def slow(name: str):
        value = get(name)
        if how == "revoked":
            for granted in world.grant.allow:
                granted.lease.revoke("withdrawn")
        else:
            world.time += 3600
        return value

    world.vault.get = slow  # type: ignore[method-assign]
    act = handle.reveal if use == "reveal" else lambda: handle.inject(API)
    assert word(act) == "closed"


@pytest.mark.case("LIFE-05")
def test_refuses_every_use_that_begins_after_a_revocation_returned() -> None:
    late: list[float] = []
    for _ in range(20):
        world = World(INJECT)
        handles = [world.handle() for _ in range(4)]
        revoked = threading.Event()

        def use(handle: SecretHandle, revoked: threading.Event = revoked) -> None:
            while True:
                after = revoked.is_set()
                try:
                    handle.inject(API)
                except CapError:
                    return
                if after:
                    late.append(1)

        threads = [threading.Thread(target=use, args=(h,)) for h in handles]
        for thread in threads:
            thread.start()
        world.secrets.revoke("acme-token", "leaked")
        revoked.set()
        for thread in threads:
            thread.join(10)
    assert not late


# -- other hands -------------------------------------------------------------------------------------


@pytest.mark.case("SEC-03", "SEC-04", "LIFE-07")
def test_refuses_the_handle_of_another_plugin() -> None:
    mine, theirs = World(INJECT, REVEAL), World(plugin_id="evil.plugin", instance=2)
    my_table, their_table = HandleTable(16), HandleTable(16)
    rep = my_table.add(mine.handle())

    assert my_table.get(rep, SecretHandle).reveal() == VALUE
    for guess in (rep, rep + 1, 0, 2**32 - 1):
        assert word(their_table.get, guess, SecretHandle) == "closed"
    assert word(theirs.state.get, "acme-token") == "denied"
    my_table.close_all()
    assert word(my_table.get, rep, SecretHandle) == "closed"


@pytest.mark.case("SEC-03")
def test_refuses_to_lend_one_plugins_origins_to_another() -> None:
    world = World(INJECT)
    elsewhere = SecretClause("acme-token", "inject", frozenset({OTHER}), HEADER)
    other = world.secrets.open(grant_of(elsewhere), open_context(Path("/nowhere"), instance=2))

    assert word(other.get("acme-token").inject, API) == "denied"
    assert word(world.handle().inject, OTHER) == "denied"


# -- records, redaction, leaks -----------------------------------------------------------------------


def test_allows_no_use_without_a_record_of_it() -> None:
    world = World(INJECT, REVEAL)
    handle = world.handle()
    handle.inject(API)
    handle.reveal()

    assert [(e.kind, e.verdict, e.action, e.target, dict(e.details)) for e in world.events] == [
        ("secret", "allowed", "inject", "acme-token", {"origin": API}),
        ("secret", "allowed", "reveal", "acme-token", {}),
    ]
    assert "s3cr3t" not in repr(world.events)


@pytest.mark.case("LOG-02")
def test_allows_a_use_only_after_the_redactor_knows_the_value() -> None:
    log: list[str] = []

    class Recorder(ListRecorder):
        def record(self, event) -> None:
            log.append("recorded")

    world = World(INJECT, REVEAL, recorder=Recorder())
    world.redact.log = log
    handle = world.handle()
    handle.inject(API)
    handle.reveal()

    assert log == ["registered", "recorded", "recorded"]
    assert world.redact.known == [("acme-token", VALUE)]


@pytest.mark.case("LOG-02", "SEC-08")
def test_allows_the_real_redactor_to_mask_what_was_used() -> None:
    redactor = Redactor()
    vault = MemoryVault({"acme-token": VALUE})
    state = Secrets(vault, redactor).open(grant_of(INJECT), open_context(Path("/nowhere")))
    assert VALUE.decode() in redactor.text(f"echo {VALUE.decode()}")

    _, value = state.get("acme-token").inject(API)

    assert "s3cr3t" not in redactor.text(f"echo {value}")


class Failing:
    """A recorder or redactor that fails, with all it was given in its frame."""

    def record(self, event) -> None:
        raise AuditError("the sink is full")

    def register(self, name: str, value: bytes) -> bool:
        held = value.decode()
        raise RuntimeError(f"no room for {held}")


def everything_in(error: BaseException | None) -> str:
    """All that a debugger or a crash reporter would show: text, causes, and locals of all frames."""
    shown = []
    while error is not None:
        shown += [str(error), repr(error), "".join(traceback.format_exception(error))]
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals["__name__"].startswith("capwasm") or "Failing" in repr(
                frame.f_locals.get("self")
            ):
                shown.append(repr(frame.f_locals))
                shown += [repr(vars(v)) for v in frame.f_locals.values() if hasattr(v, "__dict__")]
        error = error.__cause__ or error.__context__
    return "".join(shown)


@pytest.mark.case("SEC-10", "LOG-09")
@pytest.mark.parametrize("use", ["inject", "reveal"])
@pytest.mark.parametrize("broken", ["recorder", "redactor"])
def test_refuses_to_leak_through_a_traceback(use: str, broken: str) -> None:
    recorder = Failing() if broken == "recorder" else None
    world = World(INJECT, REVEAL, recorder=recorder)
    if broken == "redactor":
        world.secrets = Secrets(world.vault, Failing(), lambda: world.time)
        world.state = world.secrets.open(world.grant, world.ctx)
    handle = world.handle()

    with pytest.raises((AuditError, InternalError)) as caught:
        handle.inject(API) if use == "inject" else handle.reveal()

    shown = everything_in(caught.value)
    assert "SecretHandle" in shown
    assert "s3cr3t" not in shown


@pytest.mark.case("SEC-10")
def test_refuses_to_show_a_value_in_any_object_on_the_way() -> None:
    world = World(INJECT, REVEAL)
    handle = world.handle()
    handle.inject(API)
    objects = [handle, world.state, world.state.desk, world.vault, world.secrets, world.grant]

    for thing in objects:
        assert "s3cr3t" not in repr(thing) + repr(getattr(thing, "__dict__", ""))
        if thing is not world.grant:
            with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
                pickle.dumps(thing)


@pytest.mark.case("SEC-10")
def test_refuses_to_keep_a_value_beyond_its_use() -> None:
    world = World(INJECT)
    handle = world.handle()
    made = []
    get = world.vault.get
    world.vault.get = lambda name: made.append(get(name)) or made[-1]  # type: ignore[method-assign]

    handle.inject(API)

    assert [value.expose() for value in made] == [b""]


@pytest.mark.parametrize("use", ["get", "inject", "reveal"])
def test_refuses_with_one_word_when_the_vault_fails(use: str) -> None:
    world = World(INJECT, REVEAL)
    handle = world.handle()

    def fail(*_args: object) -> None:
        raise CapabilityError("gone", code="capability.vault")

    world.vault.get = world.vault.names = fail  # type: ignore[method-assign,assignment]
    operation = {
        "get": lambda: world.state.get("acme-token"),
        "inject": lambda: handle.inject(API),
        "reveal": handle.reveal,
    }[use]

    assert word(operation) == "unavailable"
    assert [(e.verdict, e.reason) for e in world.events] == [("failed", "gone")]


def test_allows_nothing_of_this_in_the_hosts_environment() -> None:
    assert VALUE.decode() not in repr(os.environ) + repr(sys.argv)
