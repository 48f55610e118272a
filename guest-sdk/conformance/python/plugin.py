"""The conformance plugin: everything that a plugin can do, through this SDK."""

import contextlib
from collections.abc import Callable

from capwasm_guest import (
    CapabilityError,
    Failure,
    clock,
    config,
    exec,
    fetch,
    fs,
    kv,
    log,
    plugin,
    random,
    secrets,
)

from componentize_py_types import Err

NONE = "(none)"


@plugin(interface="types")
class Types:
    """Every value as it came."""

    def _same(self, value):
        return value

    echo_bool = echo_char = echo_string = echo_f32 = echo_f64 = _same
    echo_u8 = echo_u16 = echo_u32 = echo_u64 = echo_s8 = echo_s16 = echo_s32 = echo_s64 = _same
    echo_bytes = echo_strings = echo_numbers = echo_tuple = _same
    echo_point = echo_shape = echo_amount = echo_colour = echo_rights = _same
    echo_option = echo_option_option = _same

    def echo_result(self, value):
        if isinstance(value, Err):
            raise Failure(value.value)
        return value.value

    def checked(self, value, fail):
        if fail is not None:
            raise Failure(fail)
        return value

    def describe(self, name, count, colour):
        return f"{name} {count} {colour.name.lower().replace('_', '-')}"

    def nothing(self):
        pass


OPERATIONS: dict[str, Callable[..., str | None]] = {}


def operation(function):
    """Say that a function is the operation of its name, `fs_read` for `fs.read`."""
    OPERATIONS[function.__name__.rstrip("_").replace("_", ".", 1)] = function
    return function


@plugin(interface="probe")
class Probe:
    """Operations by name."""

    def run(self, operation, arguments):
        function = OPERATIONS.get(operation)
        if function is None:
            raise Failure(f"no operation {operation}")
        try:
            return function(*arguments) or ""
        except CapabilityError as error:
            raise Failure(error.word) from None


# -- files ----------------------------------------------------------------------------------------


@operation
def fs_mounts():
    quota = lambda mount: "-" if mount.quota is None else mount.quota
    return "\n".join(f"{m.path} {m.access} {quota(m)} {m.used}" for m in fs.mounts())


@operation
def fs_read(path):
    with fs.open(path) as file:
        return b"".join(iter(lambda: file.read(65536), b"")).decode()


@operation
def fs_write(path, text):
    with fs.open(path, "write") as file:
        file.write(text.encode())


@operation
def fs_append(path, text):
    with fs.open(path, "append") as file:
        file.write(text.encode())


@operation
def fs_create(path, text):
    with fs.open(path, "create") as file:
        file.write(text.encode())


@operation
def fs_hold(path, n):
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(fs.open(path)) for _ in range(int(n))]
        return str(len(held))


@operation
def fs_size(path):
    with fs.open(path) as file:
        return str(file.size())


@operation
def fs_truncate(path, size):
    with fs.open(path, "update") as file:
        file.truncate(int(size))


@operation
def fs_list(path):
    return "\n".join(info.name for info in fs.list(path))


@operation
def fs_stat(path):
    info = fs.stat(path)
    return f"{info.kind} {info.size}"


@operation
def fs_mkdir(path):
    fs.make_directory(path)


@operation
def fs_remove(path):
    fs.remove(path)


@operation
def fs_rename(old, new):
    fs.rename(old, new)


# -- network, secrets -----------------------------------------------------------------------------


def send(method, url, *parts):
    """The answer to a request whose parts are told by how they begin."""
    headers, names, body = {}, [], None
    for part in parts:
        if part.startswith("secret:"):
            names.append(part.removeprefix("secret:"))
        elif part.startswith("body:"):
            body = part.removeprefix("body:")
        else:
            name, _, value = part.partition("=")
            headers[name] = value
    return fetch.request(method, url, headers=headers, body=body, secret=names)


@operation
def fetch_(method, url, *parts):
    with send(method, url, *parts) as answer:
        return f"{answer.status} {answer.text()}"


@operation
def fetch_header(method, url, name):
    with send(method, url) as answer:
        return answer.headers.get(name, NONE)


@operation
def fetch_stream(method, url):
    with send(method, url) as answer:
        return str(sum(map(len, iter(lambda: answer.read(1000), b""))))


@operation
def secret_get(name):
    with secrets.get(name) as secret:
        return secret.name


@operation
def secret_lease(name):
    with secrets.get(name) as secret:
        return yes(secret.lease > 0)


@operation
def secret_reveal(name):
    with secrets.get(name) as secret:
        return secret.reveal().decode()


# -- the store, the log ---------------------------------------------------------------------------


def yes(holds):
    return "yes" if holds else "no"


@operation
def kv_get(key):
    return kv.get(key, NONE.encode()).decode()


@operation
def kv_set(key, text, milliseconds=None):
    kv.set(key, text, ttl=None if milliseconds is None else int(milliseconds) / 1000)


@operation
def kv_cas(key, expected, new):
    before = None if expected == NONE else expected.encode()
    return yes(kv.compare_and_set(key, before, new.encode()))


@operation
def kv_increment(key, delta):
    return str(kv.increment(key, int(delta)))


@operation
def kv_delete(key):
    return yes(kv.delete(key))


@operation
def kv_keys(prefix):
    return "\n".join(kv.keys(prefix))


@operation
def log_(level, text):
    log.write(level, text, **{"from": "guest"})


@operation
def log_flood(n):
    for _ in range(int(n)):
        log.info("x" * 1000)


# -- time, chance, settings, commands -------------------------------------------------------------


@operation
def clock_now():
    return str(int(clock.now().timestamp() * 1e9))


@operation
def clock_monotonic():
    before = clock.monotonic()
    return yes(clock.monotonic() >= before)


@operation
def clock_sleep(nanoseconds):
    clock.sleep(int(nanoseconds) / 1e9)


@operation
def clock_loop(n):
    for _ in range(int(n)):
        clock.now()


@operation
def random_(n):
    return str(len(random.bytes(int(n))))


@operation
def random_differ():
    return yes(random.bytes(16) != random.bytes(16))


@operation
def config_get(key):
    return config.get(key, NONE)


@operation
def config_all():
    return "\n".join(f"{key}={value}" for key, value in config.all().items())


@operation
def exec_(command, text, *arguments):
    out = exec.run(command, *arguments, input=text)
    return f"{'-' if out.code is None else out.code}\n{out.text()}"


# -- limits ---------------------------------------------------------------------------------------


@operation
def std_print(text):
    print(text)


@operation
def alloc(n):
    held = [bytearray(b"\1" * 2**20) for _ in range(int(n))]
    return str(len(held))


@operation
def spin():
    while True:
        pass


@operation
def recurse():
    return recurse() + "x"


@operation
def panic(text):
    raise RuntimeError(text)
