from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from capwasm.caps.secrets import MemoryVault, SecretBytes, Vault, VaultKey
from capwasm.errors import CapabilityError

VALUE = b"s3cr3t-value-0123456789"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir(mode=0o700)
    return place


@pytest.fixture
def key(home: Path) -> VaultKey:
    return VaultKey.generate(home / "key")


@pytest.fixture
def vault(home: Path, key: VaultKey) -> Vault:
    return Vault.create(home / "vault", key)


def code_of(operation, *args) -> str:
    with pytest.raises(CapabilityError) as caught:
        operation(*args)
    assert "s3cr3t" not in str(caught.value)
    return caught.value.code


# -- what it keeps -----------------------------------------------------------------------------------


def test_allows_to_keep_values_that_another_opening_finds(home: Path, vault: Vault) -> None:
    vault.set("acme-token", VALUE)
    vault.set("b", bytes(range(256)))
    again = Vault.open(home / "vault", VaultKey.load(home / "key"))

    assert again.names() == ["acme-token", "b"]
    assert again.get("acme-token") == SecretBytes(VALUE)
    assert again.get("b").expose() == bytes(range(256))
    again.delete("b")
    assert vault.names() == ["acme-token"]
    assert code_of(vault.get, "b") == "capability.no-secret"
    assert code_of(vault.delete, "b") == "capability.no-secret"


@pytest.mark.case("SEC-10")
def test_refuses_to_store_or_say_anything_in_the_clear(home: Path, vault: Vault) -> None:
    vault.set("acme-token", VALUE)

    data = (home / "vault").read_bytes()
    assert VALUE not in data
    assert base64.b64encode(VALUE) not in data
    assert (home / "vault").stat().st_mode & 0o777 == 0o600
    assert "s3cr3t" not in repr(vault) + repr(vault.get("acme-token"))
    key_line = (home / "key").read_text().strip().split(":")[1]
    assert key_line not in repr(VaultKey.load(home / "key")) + repr(vault.__dict__)


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a/b", "../a", "a\n", "a" * 65, "ключ"])
def test_refuses_what_is_no_name(vault: Vault, name: str) -> None:
    assert code_of(vault.set, name, VALUE) == "capability.vault"
    assert code_of(vault.get, name) == "capability.no-secret"


@pytest.mark.parametrize("value", [b"", bytes(64 * 1024 + 1)])
def test_refuses_an_empty_or_huge_value(vault: Vault, value: bytes) -> None:
    assert code_of(vault.set, "a", value) == "capability.vault"
    assert vault.names() == []


def test_refuses_more_than_a_thousand_secrets(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capwasm.caps.secrets.vault.MAX_ENTRIES", 2)
    vault.set("a", b"1")
    vault.set("b", b"1")

    assert code_of(vault.set, "c", b"1") == "capability.vault"
    vault.set("a", b"2")


@pytest.mark.parametrize("reason", ["", "two\nlines", "\x1b[31m", "x" * 201])
def test_refuses_a_reason_that_could_not_be_shown(vault: Vault, reason: str) -> None:
    vault.set("a", VALUE)

    assert code_of(vault.revoke, "a", reason) == "capability.vault"
    assert vault.get("a").expose() == VALUE


@pytest.mark.case("SEC-06")
def test_refuses_a_revoked_secret_until_it_has_a_new_value(home: Path, vault: Vault) -> None:
    other = Vault.open(home / "vault", VaultKey.load(home / "key"))
    vault.set("a", VALUE)
    before = (home / "vault").read_bytes()
    vault.revoke("a", "leaked")

    assert code_of(other.get, "a") == "capability.secret-revoked"
    assert other.names() == []
    assert other.revoked() == {"a": "leaked"}
    box = json.loads(before.split(b"\n")[0])["entries"]["a"]["box"]
    assert box.encode() not in (home / "vault").read_bytes()
    assert code_of(vault.revoke, "b", "x") == "capability.no-secret"
    other.set("a", b"new")
    assert vault.get("a").expose() == b"new"
    assert vault.revoked() == {}


# -- keys --------------------------------------------------------------------------------------------


def test_refuses_another_key_or_another_kind_of_key(home: Path, vault: Vault) -> None:
    assert code_of(Vault.open, home / "vault", VaultKey.generate(home / "other")) == (
        "capability.vault"
    )
    with pytest.raises(CapabilityError, match="locked with a key file"):
        Vault.open(home / "vault", VaultKey.from_passphrase("correct horse battery"))


def test_allows_a_passphrase_and_refuses_another(home: Path) -> None:
    Vault.create(home / "v", VaultKey.from_passphrase("correct horse battery")).set("a", VALUE)

    opened = Vault.open(home / "v", VaultKey.from_passphrase("correct horse battery"))
    assert opened.get("a").expose() == VALUE
    with pytest.raises(CapabilityError, match="not this vault's"):
        Vault.open(home / "v", VaultKey.from_passphrase("correct horse batterz"))
    assert code_of(VaultKey.from_passphrase, "short") == "capability.vault-key"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "capwasm-vault-key-1:",
        "capwasm-vault-key-1:AAAA",
        "capwasm-vault-key-1:" + "!" * 44,
    ],
)
def test_refuses_a_file_that_is_no_key(home: Path, text: str) -> None:
    path = home / "bad"
    path.write_text(text)
    path.chmod(0o600)

    assert code_of(VaultKey.load, path) == "capability.vault-key"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o610])
def test_refuses_a_key_or_a_vault_that_others_can_open(home: Path, vault: Vault, mode: int) -> None:
    (home / "key").chmod(mode)
    with pytest.raises(CapabilityError, match="chmod 0600") as caught:
        VaultKey.load(home / "key")
    assert caught.value.code == "capability.vault-key"
    (home / "vault").chmod(mode)
    assert code_of(vault.names) == "capability.vault"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_refuses_a_key_of_another_user(home: Path, key: VaultKey) -> None:
    os.chown(home / "key", 12345, -1)

    with pytest.raises(CapabilityError, match="another user"):
        VaultKey.load(home / "key")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_refuses_a_directory_that_others_can_write(home: Path, vault: Vault, mode: int) -> None:
    key = VaultKey.load(home / "key")
    home.chmod(mode)

    assert code_of(Vault.open, home / "vault", key) == "capability.vault"
    assert code_of(Vault.create, home / "second", key) == "capability.vault"
    assert not (home / "second").exists()


def test_refuses_to_make_one_over_another(home: Path, vault: Vault, key: VaultKey) -> None:
    vault.set("a", VALUE)

    assert code_of(Vault.create, home / "vault", key) == "capability.vault"
    assert code_of(VaultKey.generate, home / "key") == "capability.vault-key"
    assert vault.get("a").expose() == VALUE


def test_allows_to_make_its_directory_private(tmp_path: Path, key: VaultKey) -> None:
    Vault.create(tmp_path / "new" / "vault", key)

    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_refuses_without_the_keyring_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)

    with pytest.raises(CapabilityError, match="pip install keyring"):
        VaultKey.from_keyring()


def test_allows_a_key_from_the_keyring(
    home: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Keyring:
        @staticmethod
        def get_password(service: str, user: str) -> str | None:
            if user == "broken":
                raise RuntimeError("s3cr3t backend text")
            return (home / "key").read_text() if (service, user) == ("capwasm", "vault") else None

    monkeypatch.setitem(sys.modules, "keyring", Keyring)

    assert Vault.open(home / "vault", VaultKey.from_keyring()).names() == []
    assert code_of(VaultKey.from_keyring, "capwasm", "x") == "capability.vault-key"
    assert code_of(VaultKey.from_keyring, "capwasm", "broken") == "capability.vault-key"


def test_allows_to_rotate_the_key_and_refuses_the_old_one(home: Path, vault: Vault) -> None:
    vault.set("a", VALUE)
    vault.set("gone", VALUE)
    vault.revoke("gone", "leaked")
    other = Vault.open(home / "vault", VaultKey.load(home / "key"))

    vault.rotate_key(VaultKey.generate(home / "key-2"))

    assert vault.get("a").expose() == VALUE
    vault.set("b", b"2")
    assert code_of(other.get, "a") == "capability.vault"
    again = Vault.open(home / "vault", VaultKey.load(home / "key-2"))
    assert again.names() == ["a", "b"]
    assert again.revoked() == {"gone": "leaked"}


# -- other hands -------------------------------------------------------------------------------------


@pytest.mark.case("PER-03", "SIG-23")
def test_refuses_any_byte_changed_added_or_cut(home: Path, vault: Vault) -> None:
    vault.set("acme-token", VALUE)
    vault.set("b", b"2")
    vault.revoke("b", "leaked")
    path, key = home / "vault", VaultKey.load(home / "key")
    good = path.read_bytes()
    flips = random.Random(1)

    def refused(data: bytes) -> None:
        path.write_bytes(data)
        assert code_of(vault.get, "acme-token") == "capability.vault"
        assert code_of(Vault.open, path, key) == "capability.vault"

    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << flips.randrange(8)
        refused(bytes(bad))
    for data in (b"", good[:-1], good + b"\n", b"\n" + good, good[: len(good) // 2], good * 2):
        refused(data)
    path.write_bytes(good)
    assert vault.get("acme-token").expose() == VALUE


@pytest.mark.case("SEC-03")
def test_refuses_entries_that_were_moved_from_name_to_name_or_vault_to_vault(
    home: Path, vault: Vault, key: VaultKey
) -> None:
    from capwasm.caps.secrets.vaultdoc import Damaged, open_entry, seal_entry

    mine, twin = key.derive("00" * 32), key.derive("01" * 32)
    entry = seal_entry("a", VALUE, mine)

    assert open_entry("a", entry, mine).expose() == VALUE
    for name, keys in (("b", mine), ("a", twin)):
        with pytest.raises(Damaged):
            open_entry(name, entry, keys)


@pytest.mark.case("PER-08", "SIG-23")
def test_refuses_an_older_copy_while_the_process_remembers(home: Path, vault: Vault) -> None:
    vault.set("a", VALUE)
    old = (home / "vault").read_bytes()
    vault.revoke("a", "leaked")
    assert code_of(vault.get, "a") == "capability.secret-revoked"
    (home / "vault").write_bytes(old)

    with pytest.raises(CapabilityError, match="older copy"):
        vault.get("a")


@pytest.mark.parametrize("what", ["link", "fifo", "directory", "gone", "huge"])
def test_refuses_a_place_that_holds_no_plain_file(home: Path, vault: Vault, what: str) -> None:
    path = home / "vault"
    good = path.read_bytes()
    path.unlink()
    if what == "link":
        (home / "elsewhere").write_bytes(good)
        path.symlink_to("elsewhere")
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    elif what == "huge":
        with path.open("wb") as file:
            file.truncate(9 * 1024 * 1024)
        path.chmod(0o600)

    assert code_of(vault.names) == "capability.vault"


# -- faults and crowds -------------------------------------------------------------------------------


@pytest.mark.case("PER-02")
def test_refuses_a_change_that_finds_no_room_and_keeps_the_old(home: Path, vault: Vault) -> None:
    vault.set("a", VALUE)
    script = textwrap.dedent(
        """
        import resource, sys
        from capwasm.caps.secrets import Vault, VaultKey
        from capwasm.errors import CapabilityError

        vault = Vault.open(sys.argv[1], VaultKey.load(sys.argv[2]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
        try:
            vault.set("b", b"x" * 1000)
        except CapabilityError as exc:
            print(exc.code)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(home / "vault"), str(home / "key")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout.strip(), done.stderr) == ("capability.vault", "")
    assert vault.names() == ["a"]
    assert not list(home.glob("*.tmp")) + list(home.glob(".*.tmp"))


KILLED = textwrap.dedent(
    """
    import sys
    from capwasm.caps.secrets import Vault, VaultKey

    vault = Vault.open(sys.argv[1], VaultKey.load(sys.argv[2]))
    n = int(vault.get("n").expose())
    while True:
        n += 1
        vault.set("n", b"%d" % n)
        print(n, flush=True)
    """
)


@pytest.mark.case("PER-01", "PER-07")
def test_allows_a_kill_at_any_moment_to_leave_the_old_vault_or_the_new(
    home: Path, vault: Vault
) -> None:
    vault.set("n", b"0")
    vault.set("other", VALUE)
    for round_ in range(8):
        worker = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(home / "vault"), str(home / "key")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        lines = [worker.stdout.readline()]
        time.sleep(0.003 * round_)
        worker.kill()
        lines += worker.stdout.read().splitlines()
        worker.wait(timeout=10)
        worker.stdout.close()
        told = int([line for line in lines if line.strip()][-1])

        assert int(vault.get("n").expose()) in (told, told + 1)
        assert vault.get("other").expose() == VALUE
        assert vault.names() == ["n", "other"]
    vault.set("n", b"0")
    assert not list(home.glob(".*.tmp"))


COUNTING = textwrap.dedent(
    """
    import sys
    from capwasm.caps.secrets import Vault, VaultKey

    vault = Vault.open(sys.argv[1], VaultKey.load(sys.argv[2]))
    for n in range(10):
        vault.set(f"{sys.argv[3]}{n}", b"x")
    """
)


@pytest.mark.case("PER-06")
def test_allows_two_processes_and_threads_to_write_without_losing_one(
    home: Path, vault: Vault
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTING, str(home / "vault"), str(home / "key"), name]
        )
        for name in ("p", "q")
    ]
    done = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                vault.names()
        except BaseException as exc:
            failures.append(exc)

    def write() -> None:
        try:
            for n in range(10):
                vault.set(f"t{n}", b"x")
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=read), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    assert [p.wait(timeout=60) for p in processes] == [0, 0]
    threads[1].join(timeout=60)
    done.set()
    threads[0].join(timeout=60)

    assert not failures
    assert vault.names() == sorted(f"{p}{n}" for p in "pqt" for n in range(10))


def test_refuses_to_wait_for_ever_for_the_lock(
    home: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr("capwasm.caps.secrets.vault.LOCK_SECONDS", 0.05)
    with (home / ".vault.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert code_of(vault.set, "a", b"1") == "capability.vault"
    vault.set("a", b"1")


# -- in memory ---------------------------------------------------------------------------------------


def test_allows_a_vault_in_memory_that_behaves_alike() -> None:
    vault = MemoryVault({"a": VALUE})

    assert vault.names() == ["a"]
    assert vault.get("a").expose() == VALUE
    assert "s3cr3t" not in repr(vault)
    vault.revoke("a", "leaked")
    assert vault.names() == []
    assert code_of(vault.get, "a") == "capability.secret-revoked"
    assert code_of(vault.get, "b") == "capability.no-secret"
    assert code_of(vault.revoke, "b", "x") == "capability.no-secret"
    vault.set("a", b"new")
    assert vault.get("a").expose() == b"new"
