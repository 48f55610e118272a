from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from capwasm.caps.kv import Kv, KvClause
from capwasm.errors import CapabilityError, CapError
from capwasm.limits import Limits
from tests.helpers import grant_of, in_call, open_context


class Store:
    """An opened capability, and all there is around it."""

    def __init__(self, directory: Path, *clauses: KvClause, **kwargs) -> None:
        self.now = 1_000.0
        self.kv = Kv(now=lambda: self.now)
        self.grant = grant_of(*clauses, deny=kwargs.pop("deny", ()))
        self.ctx = open_context(directory, **kwargs)
        self.state = self.kv.open(self.grant, self.ctx)
        [interface] = self.kv.serve(self.state)
        assert interface.name in Kv.interfaces
        assert not interface.resources
        self.functions = interface.functions

    def __call__(self, function: str, *args, **limits):
        with in_call(Limits(**limits)):
            return self.functions[function](*args)

    def word(self, function: str, *args) -> str:
        with pytest.raises(CapError) as caught:
            self(function, *args)
        return caught.value.word


@pytest.fixture
def store(tmp_path: Path):
    made = Store(tmp_path, KvClause())
    yield made
    made.kv.close(made.state)


def test_allows_to_store_read_and_delete(store: Store) -> None:
    assert store("get", "k") is None
    store("set", "k", b"v", None)
    assert store("get", "k") == b"v"
    store("set", "k", bytearray(b"w"), None)
    assert store("get", "k") == b"w"
    assert store("delete", "k") is True
    assert store("delete", "k") is False
    assert store("get", "k") is None


@pytest.mark.parametrize("key", ["", "k" * 513, "ß" * 257, "a\0b", "a\n", "\x7f", "\x85", "\ud800"])
def test_refuses_a_key_that_is_empty_long_or_unprintable(store: Store, key: str) -> None:
    for call in [
        ("get", key),
        ("set", key, b"v", None),
        ("compare-and-set", key, None, b"v"),
        ("increment", key, 1),
        ("delete", key),
    ]:
        assert store.word(*call) == "invalid"
    if key:
        assert store.word("keys", key, None) == "invalid"
        assert store.word("keys", "", key) == "invalid"


@pytest.mark.parametrize(
    "key", ["k" * 512, "ß" * 256, "a'; DROP TABLE entries --", "%", "../x", "🦀"]
)
def test_allows_any_other_key(store: Store, key: str) -> None:
    store("set", key, b"v", None)

    assert store("get", key) == b"v"
    assert store("keys", key, None) == [key]


def test_allows_a_value_until_its_time_is_over(store: Store) -> None:
    store("set", "k", b"v", 1500)
    store("set", "for ever", b"v", 2**64 - 1)
    store("set", "at once", b"v", 0)
    store.now += 1.499

    assert store("get", "k") == b"v"
    assert store("get", "at once") is None
    store.now += 0.001
    assert store("get", "k") is None
    assert store("keys", "", None) == ["for ever"]
    assert store("delete", "k") is False
    assert store("compare-and-set", "k", None, b"w") is True
    assert store("get", "k") == b"w"


def test_refuses_to_set_when_the_value_is_another(store: Store) -> None:
    assert store("compare-and-set", "k", b"", b"v") is False
    assert store("compare-and-set", "k", None, b"v") is True
    assert store("compare-and-set", "k", None, b"w") is False
    assert store("compare-and-set", "k", b"w", b"x") is False
    assert store("compare-and-set", "k", b"v", b"w") is True
    assert store("get", "k") == b"w"


def test_allows_to_count_up_and_down_in_decimal(store: Store) -> None:
    assert store("increment", "n", 5) == 5
    assert store("increment", "n", -7) == -2
    assert store("get", "n") == b"-2"
    store("set", "n", b"41", 1000)
    assert store("increment", "n", 1) == 42
    store.now += 1
    assert store("increment", "n", 1) == 1


@pytest.mark.parametrize("end", [2**63 - 1, -(2**63)])
def test_refuses_a_sum_that_does_not_fit(store: Store, end: int) -> None:
    assert store("increment", "n", end) == end

    assert store.word("increment", "n", 1 if end > 0 else -1) == "invalid"
    assert store("get", "n") == b"%d" % end


@pytest.mark.parametrize(
    "value", [b"", b"x", b"+1", b"01", b"-0", b" 1", b"1_0", b"1" * 30, b"--1"]
)
def test_refuses_to_count_what_is_no_number(store: Store, value: bytes) -> None:
    store("set", "n", value, None)

    assert store.word("increment", "n", 1) == "invalid"
    assert store("get", "n") == value


def test_allows_to_page_through_a_thousand_keys_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path, KvClause(keys=2_100))
    expected = sorted(f"{'ab'[n % 2]}{n}" for n in range(1_250))
    for key in expected:
        store("set", key, b"", None)

    def page_through(prefix: str, **limits: int) -> list[str]:
        found, after = [], None
        while page := store("keys", prefix, after, **limits):
            assert len(page) <= 1_000
            found += page
            after = page[-1]
        return found

    assert page_through("") == expected
    assert page_through("a") == [k for k in expected if k.startswith("a")]
    assert page_through("b99", value_bytes=1_000_000) == [k for k in expected if k[:3] == "b99"]
    assert len(store("keys", "", None)) == 1_000
    assert store("keys", "c", None) == []
    assert store("keys", "a", "b") == []
    store.kv.close(store.state)


def test_refuses_a_page_larger_than_one_value_may_be(tmp_path: Path) -> None:
    store = Store(tmp_path, KvClause(), limits=Limits(value_bytes=1_200))
    for n in range(5):
        store("set", f"{n}" * 500, b"", None)

    page = store("keys", "", None)
    assert page == ["0" * 500, "1" * 500]
    assert store("keys", "", page[-1]) == ["2" * 500, "3" * 500]
    store.kv.close(store.state)


# -- quota ---------------------------------------------------------------------------------------------


@pytest.mark.case("FS-22")
def test_refuses_more_bytes_keys_or_larger_values_than_granted(tmp_path: Path) -> None:
    store = Store(tmp_path, KvClause(quota=100, keys=3, value_bytes=50))

    assert store.word("set", "k", b"x" * 51, None) == "too-large"
    store("set", "a", b"x" * 49, None)
    store("set", "b", b"x" * 49, None)
    assert store.word("set", "c", b"", None) == "quota"
    assert store.word("set", "a", b"x" * 50, None) == "quota"
    assert store.word("compare-and-set", "c", None, b"") == "quota"
    assert store.word("increment", "c", 1) == "quota"
    assert store("get", "c") is None
    assert store("get", "a") == b"x" * 49
    store("set", "a", b"", None)
    store("set", "c", b"", None)
    assert store.word("set", "d", b"", None) == "quota"
    denials = store.ctx.recorder.of("denied")
    assert {(e.kind, e.reason) for e in denials} == {("kv", "too-large"), ("kv", "quota")}
    assert not any("x" * 49 in repr(e) for e in denials)
    store.kv.close(store.state)


def test_allows_room_again_when_values_expire(tmp_path: Path) -> None:
    store = Store(tmp_path, KvClause(quota=10))
    store("set", "a", b"x" * 9, 1000)
    assert store.word("set", "b", b"x", None) == "quota"

    store.now += 1
    store("set", "b", b"x" * 9, None)
    store.kv.close(store.state)


def test_allows_a_store_over_a_lowered_quota_only_to_shrink(tmp_path: Path) -> None:
    before = Store(tmp_path, KvClause())
    before("set", "a", b"x" * 100, None)
    before("set", "b", b"x" * 100, None)
    before.kv.close(before.state)
    store = Store(tmp_path, KvClause(quota=50))

    assert store("get", "a") == b"x" * 100
    assert store.word("set", "a", b"x" * 101, None) == "quota"
    store("set", "a", b"x" * 90, None)
    assert store.word("set", "c", b"", None) == "quota"
    store("delete", "a")
    store("delete", "b")
    store("set", "c", b"x" * 49, None)
    store.kv.close(store.state)


class QuotaMachine(RuleBasedStateMachine):
    """The store against a dict: the same answers, and never over the quota."""

    QUOTA, KEYS, VALUE = 60, 4, 20
    keys = st.sampled_from(["a", "bb", "ß", "ab", "a-long-key"])
    values = st.binary(max_size=24)

    @initialize(directory=st.uuids())
    def begin(self, directory) -> None:
        place = self.base / str(directory)  # type: ignore[attr-defined]
        place.mkdir(exist_ok=True)
        self.store = Store(place, KvClause(self.QUOTA, self.KEYS, self.VALUE))
        self.model: dict[str, tuple[bytes, float]] = {}
        for key in self.store("keys", "", None):  # hypothesis may draw one directory again
            self.store("delete", key)

    def live(self) -> dict[str, bytes]:
        return {k: v for k, (v, until) in self.model.items() if until > self.store.now}

    def expect(self, key: str, value: bytes) -> str | None:
        if len(value) > self.VALUE:
            return "too-large"
        live = self.live()
        after = {**live, key: value}

        def size(entries: dict[str, bytes]) -> int:
            return sum(len(k.encode()) + len(v) for k, v in entries.items())

        grows = size(after) > size(live) or len(after) > len(live)
        over = size(after) > self.QUOTA or len(after) > self.KEYS
        return "quota" if grows and over else None

    @rule(key=keys, value=values, ttl=st.none() | st.integers(0, 5))
    def set(self, key: str, value: bytes, ttl: int | None) -> None:
        word = self.expect(key, value)
        ttl_ms = None if ttl is None else ttl * 1000
        if word:
            assert self.store.word("set", key, value, ttl_ms) == word
        else:
            self.store("set", key, value, ttl_ms)
            self.model[key] = (value, float("inf") if ttl is None else self.store.now + ttl)

    @rule(key=keys, value=values, expected=st.none() | values)
    def compare_and_set(self, key: str, value: bytes, expected: bytes | None) -> None:
        if len(value) > self.VALUE:
            assert self.store.word("compare-and-set", key, expected, value) == "too-large"
        elif self.live().get(key) != expected:
            assert self.store("compare-and-set", key, expected, value) is False
        elif self.expect(key, value):
            assert self.store.word("compare-and-set", key, expected, value) == "quota"
        else:
            assert self.store("compare-and-set", key, expected, value) is True
            self.model[key] = (value, float("inf"))

    @rule(key=keys, delta=st.integers(-(2**63), 2**63 - 1))
    def increment(self, key: str, delta: int) -> None:
        old = self.live().get(key)
        try:
            total = int(old or b"0") + delta
            fits = old is None or (b"%d" % int(old) == old and -(2**63) <= total < 2**63)
        except ValueError:
            fits = False
        if not fits or (old is not None and not old):
            assert self.store.word("increment", key, delta) == "invalid"
        elif self.expect(key, b"%d" % total) == "quota":
            assert self.store.word("increment", key, delta) == "quota"
        else:
            assert self.store("increment", key, delta) == total
            until = self.model[key][1] if old is not None else float("inf")
            self.model[key] = (b"%d" % total, until)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        assert self.store("delete", key) is (key in self.live())
        self.model.pop(key, None)

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.store.now += seconds

    @rule()
    def open_again(self) -> None:
        self.store.state.store.close()

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "store"):
            return
        live = self.live()
        assert self.store("keys", "", None) == sorted(live)
        assert {k: self.store("get", k) for k in live} == live
        assert sum(len(k.encode()) + len(v) for k, v in live.items()) <= self.QUOTA
        assert len(live) <= self.KEYS

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.kv.close(self.store.state)


def test_allows_what_a_dict_would_within_the_quota(tmp_path: Path) -> None:
    QuotaMachine.base = tmp_path  # type: ignore[attr-defined]
    run = QuotaMachine.TestCase
    run.settings = settings(
        max_examples=100,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run("runTest").runTest()


# -- grants --------------------------------------------------------------------------------------------

EVERY = [
    ("get", "k"),
    ("set", "k", b"v", None),
    ("compare-and-set", "k", None, b"v"),
    ("increment", "k", 1),
    ("delete", "k"),
    ("keys", "", None),
]


@pytest.mark.case("LIFE-05", "LIFE-06")
def test_refuses_everything_once_revoked(store: Store) -> None:
    store("set", "k", b"v", None)
    store.grant.allow[0].lease.revoke("test")

    assert {store.word(*call) for call in EVERY} == {"closed"}
    assert len(store.ctx.recorder.of("denied")) == len(EVERY)


@pytest.mark.parametrize("why", ["nothing granted", "a deny rule"])
def test_refuses_everything_without_a_grant(tmp_path: Path, why: str) -> None:
    clauses = () if why == "nothing granted" else (KvClause(),)
    store = Store(tmp_path, *clauses, deny=(KvClause(),) if why == "a deny rule" else ())

    assert {store.word(*call) for call in EVERY} == {"denied"}
    assert not list(tmp_path.iterdir())


@pytest.mark.case("SEC-03")
def test_refuses_to_show_one_plugins_keys_to_another(tmp_path: Path) -> None:
    homes = {}
    for plugin in ("acme.a", "acme.b"):
        (tmp_path / plugin).mkdir()
        homes[plugin] = Store(tmp_path / plugin, KvClause(), plugin_id=plugin)
    homes["acme.a"]("set", "k", b"a", None)

    assert homes["acme.b"]("get", "k") is None
    for store in homes.values():
        store.kv.close(store.state)


def test_allows_a_new_version_the_old_ones_values(tmp_path: Path) -> None:
    old = Store(tmp_path, KvClause(), version="1.0.0")
    old("set", "k", b"v", None)
    new = Store(tmp_path, KvClause(), version="2.0.0", instance=2)

    assert new("get", "k") == b"v"
    for store in (old, new):
        store.kv.close(store.state)


def test_refuses_to_open_without_a_data_directory(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError) as caught:
        Store(tmp_path / "gone", KvClause())
    assert caught.value.code == "capability.kv"


@pytest.mark.case("RES-03")
def test_refuses_free_bytes_each_is_charged(store: Store) -> None:
    with in_call() as call:
        store.functions["set"]("k", b"v" * 1000, None)
        assert call.host_fuel >= 1000
        store.functions["get"]("k")
        assert call.host_fuel >= 2000


def test_allows_an_unused_store_to_cost_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path, KvClause())
    store.kv.close(store.state)

    assert not list(tmp_path.iterdir())
