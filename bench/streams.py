"""`python -m bench.streams`: large bodies through `wasi:http`, beside Python's own client.

An unmodified Rust component downloads and uploads 100 MB, to and from an origin on this machine that
is a process of its own; the next turn is that of `http.client`, in the same run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .home import Operator

SIZE = 100 * 10**6
PIECE = 1 << 18
COURIER = Path(__file__).parents[1] / "tests/guests/courier.wasm"
LIMITS = "net-bytes = 1000000000\nfuel = 1000000000000\nwall-ms = 60000\nhost-calls = 10000000\n"
NET = '[[{}net]]\nallow = "http://127.0.0.1/32:{}/*"\nmethods = ["*"]\n'


def serve() -> None:
    """The origin: sends 100 MB for a GET, and takes whatever else comes."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    block = bytes(PIECE)
    while True:
        peer, _ = listener.accept()
        with peer, peer.makefile("rb") as lines:
            head = []
            while (line := lines.readline()) not in (b"\r\n", b""):
                head.append(line.lower())
            if not head:
                continue
            if head[0].startswith(b"get"):
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
                left = SIZE
                while left:
                    left -= peer.send(block[: min(left, PIECE)])
                continue
            length = next((int(h.split()[1]) for h in head if h.startswith(b"content-length")), -1)
            while length > 0:
                length -= len(lines.read(min(length, PIECE)))
            while length < 0 and (size := int(lines.readline() or b"0", 16)):
                lines.read(size + 2)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@contextmanager
def origin() -> Iterator[int]:
    """Its port."""
    argv = [sys.executable, "-c", "from bench.streams import serve; serve()"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def plain_down(port: int) -> None:
    """Python's own client."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/down")
    response, got = connection.getresponse(), 0
    while chunk := response.read(PIECE):
        got += len(chunk)
    assert got == SIZE
    connection.close()


def plain_up(port: int) -> None:
    """Python's own client."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    pieces = (bytes(PIECE)[: min(PIECE, SIZE - at)] for at in range(0, SIZE, PIECE))
    connection.request("POST", "/up", pieces, {"Content-Length": str(SIZE)})
    assert connection.getresponse().read() == b"ok"
    connection.close()


def resident_kib() -> int:
    """The most memory that this process ever had."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


def main() -> None:
    """Measure, and print MB/s: the median of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.streams")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, origin() as port:
        operator = Operator(Path(scratch))
        policy = operator.home / "policy.toml"
        policy.write_text(policy.read_text() + NET.format('plugins."bench.*".', port))
        with operator.runtime() as runtime:
            capsule = operator.capsule(
                runtime,
                "courier",
                COURIER.read_bytes(),
                instance="per-call",
                grants="",
                tables=LIMITS + "[random]\n[clock]\n[log]\n" + NET.format("", port),
            )
            where = f"127.0.0.1:{port}"
            turns: dict[str, Callable[[], object]] = {}
            for name, place in (("in process", "in-process"), ("own process", "process")):
                plugin = runtime.load(capsule, isolation=place)
                errands = plugin.exports.errands
                turns[f"wasi:http down, {name}"] = lambda e=errands: e.download(
                    where, "/down"
                ).unwrap()
                turns[f"wasi:http up, {name}"] = lambda e=errands: e.upload(
                    where, "/up", SIZE
                ).unwrap()
            turns["http.client down"] = lambda: plain_down(port)
            turns["http.client up"] = lambda: plain_up(port)
            for turn in turns.values():
                turn()
            before, found = resident_kib(), {name: [] for name in turns}
            for _ in range(options.rounds):
                for name, turn in turns.items():
                    began = time.perf_counter()
                    turn()
                    found[name].append(SIZE / 1e6 / (time.perf_counter() - began))
            grown = resident_kib() - before
    if options.json:
        print(json.dumps({"MB/s": found, "grown-kib": grown}))
        return
    for name, rates in found.items():
        print(f"{name:32} {sorted(rates)[len(rates) // 2]:6.0f} MB/s  (best {max(rates):.0f})")
    print(f"peak memory of this process grew by {grown} KiB")


if __name__ == "__main__":
    main()
