"""Real listeners on loopback that count who came, and an engine that resolves names to them."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from capwasm.capability import Grant, GrantedClause
from capwasm.caps.net.egress import EgressEngine
from capwasm.caps.net.parse import parse_net
from capwasm.caps.net.request import RequestSpec
from capwasm.caps.net.resolve import Lookups
from capwasm.caps.net.wire import tls_context
from capwasm.errors import CapError
from capwasm.events import Event
from capwasm.handles import Lease
from capwasm.lattice import ClauseSet
from capwasm.limits import DEFAULTS, Limits
from tests.helpers import ListRecorder, in_call

from .doors import FetchDoor, HttpDoor, Reply


@dataclass(frozen=True)
class Got:
    """A request as it came over the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[str] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [v for n, v in self.headers if n.lower() == name]


Answer = Callable[[Got], bytes | Iterable[bytes]]


def http(
    body: bytes = b"hello", status: int = 200, headers: Sequence[tuple[str, str]] = ()
) -> bytes:
    """A response whose body has a length."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{n}: {v}" for n, v in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(to: str, status: int = 302) -> bytes:
    return http(b"", status, [("Location", to)])


class Origin:
    """One listener; `answer` makes the bytes of each answer, or pieces of them, or `b""` to hang up."""

    def __init__(
        self,
        answer: Answer = lambda _: http(),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.connections = 0
        self.got: list[Got] = []
        self.gone = threading.Event()  # some client hung up
        self._tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind((host, port))
        self._sock.listen(64)
        self.port: int = self._sock.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for conn in list(self._open):
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._sock.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        try:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                raw, conn = conn, self._tls.wrap_socket(conn, server_side=True)
                self._open.discard(raw)
                self._open.add(conn)
            with conn, conn.makefile("rb") as file:
                while (got := self._read(file)) is not None:
                    self.got.append(got)
                    answer = self.answer(got)
                    pieces = [answer] if isinstance(answer, bytes) else answer
                    for piece in pieces:
                        if not piece:
                            return
                        conn.sendall(piece)
        except (OSError, ValueError):
            pass
        finally:
            self.gone.set()
            conn.close()
            self._open.discard(conn)

    @staticmethod
    def _read(file: Any) -> Got | None:
        line = file.readline()
        if not line:
            return None
        headers = []
        while (row := file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = row.decode("latin-1").partition(": ")
            headers.append((name, value))
        asked = line.decode("latin-1").rstrip("\r\n")
        if ("transfer-encoding", "chunked") in [(n.lower(), v) for n, v in headers]:
            body, trailers = _chunks(file)
            return Got(asked, headers, body, trailers)
        length = next((int(v) for n, v in headers if n.lower() == "content-length"), 0)
        return Got(asked, headers, file.read(length))


def _chunks(file: Any) -> tuple[bytes, list[str]]:
    """A body in chunks, and the lines after it."""
    body = bytearray()
    while size := int(file.readline(), 16):
        body += file.read(size)
        file.readline()
    trailers = []
    while (row := file.readline().rstrip(b"\r\n")) != b"":
        trailers.append(row.decode("latin-1"))
    return bytes(body), trailers


@dataclass(repr=False)
class Secret:
    """A credential such as the secrets capability hands out."""

    value: str = "s3cr3t-token-0123456789"
    origins: tuple[str, ...] = ()
    header: str = "Authorization"
    form: str = "Bearer {}"
    lease: Lease = field(default_factory=Lease)
    asked: list[str] = field(default_factory=list)

    def injects_into(self, origin: str) -> bool:
        return origin in self.origins

    def inject(self, origin: str) -> tuple[str, str]:
        self.asked.append(origin)
        self.lease.check()
        if origin not in self.origins:
            raise CapError("denied", "not for this origin")
        return self.header, self.form.replace("{}", self.value)


class Bench:
    """An engine, what it recorded, and the names it knows.

    Attributes:
        door: by which `fetch` goes; set by the fixture of that name.
    """

    door: FetchDoor | HttpDoor = FetchDoor()

    def __init__(
        self,
        names: Mapping[str, Sequence[str] | Callable[[], Sequence[str]]] | None = None,
        *,
        ca_file: Path | None = None,
        own: Callable[[Any], bool] = lambda _: False,
    ) -> None:
        self.names = {"api.test": ["127.0.0.1"], "other.test": ["127.0.0.1"], **(names or {})}
        self.recorder = ListRecorder()
        self.looked_up: list[str] = []
        self.engine = EgressEngine(
            "acme.demo",
            lambda kind, verdict, **f: self.recorder.record(Event(kind, verdict, **f)),
            Lookups(self._resolve),
            lambda: tls_context(ca_file),
            is_own=own,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def _resolve(self, name: str, _port: int) -> Sequence[str]:
        self.looked_up.append(name)
        if name not in self.names:
            raise OSError("no such name")
        found = self.names[name]
        return found() if callable(found) else found

    def fetch(
        self, grant: Any, url: str, *, limits: Limits = DEFAULTS, method: str = "GET", **words: Any
    ) -> Reply:
        """Send, follow redirects, and read all."""
        with in_call(limits) as call:
            spec = RequestSpec(method, url, **words)
            return self.door.ask(self.engine, grant, call, spec, 50_000_000)

    def refused(self, grant: Any, url: str, **words: Any) -> str:
        """The word with which that is refused."""
        with pytest.raises(CapError) as caught:
            self.fetch(grant, url, **words)
        return caught.value.word

    @property
    def reasons(self) -> list[str]:
        return [e.reason for e in self.recorder.events]


def rules(*tables: Mapping[str, Any], deny: Sequence[Mapping[str, Any]] = ()) -> Grant[Any]:
    """The grant that a policy with these `[[net]]` tables gives."""
    allowed, denied = parse_net(tables, "policy"), parse_net(deny, "policy")
    assert not allowed.faults, allowed.faults
    assert not denied.faults, denied.faults
    return Grant(tuple(GrantedClause(c) for c in allowed.clauses), ClauseSet.of(denied.clauses))


def local(allow: str, methods: Sequence[str] = ("*",)) -> dict[str, Any]:
    """A rule for a name that may lead to this machine's first loopback address."""
    return {"allow": allow, "methods": list(methods), "addresses": ["127.0.0.1/32"]}


class Place:
    """An origin that may be reached, and a way to ask it."""

    def __init__(self) -> None:
        self.origin = Origin()
        self.bench = Bench()
        self.base = f"http://api.test:{self.origin.port}"
        self.grant = rules(local(self.base))

    def send(self, call: Any, path: str = "/", method: str = "GET", **words: Any) -> Any:
        return self.bench.engine.request(
            self.grant, RequestSpec(method, self.base + path, **words), call
        )

    def fetch(self, path: str = "/", **words: Any) -> tuple[Reply, bytes]:
        reply = self.bench.fetch(self.grant, self.base + path, **words)
        return reply, reply.body

    def refused(self, path: str = "/", **words: Any) -> str:
        return self.bench.refused(self.grant, self.base + path, **words)


def make_tls(
    folder: Path, names: Sequence[str] = ("api.test", "127.0.0.1")
) -> tuple[Path, ssl.SSLContext]:
    """An authority's PEM file, and the TLS settings of a server that it vouches for."""
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

    def builder(subject: x509.Name, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
        )

    usage = dict.fromkeys(
        [
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    ca = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "key_cert_sign": True}), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    sans: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n)
        for n in names
    ]
    leaf = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), key.public_key())
        .add_extension(x509.SubjectAlternativeName(sans), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "leaf.pem").write_bytes(
        leaf.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem")
    return folder / "ca.pem", context
