"""From the author's class to what componentize-py looks for: one class an exported interface.

`capwasm build` makes an app module of two lines that calls `exports`.  It runs while the component
is built: what the author's module defines is part of the component's memory, and everything here
that can be wrong is told at build and not at the first call.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from . import _preload  # noqa: F401  what Python imports late must be in the component
from ._bindings import err_type, started
from ._plugin import SetupError, find
from ._shape import convert
from .errors import CapabilityError, Failure

__all__ = ["exports"]

_NO_ERR = object()
_RAISES = re.compile(r"Raises: `componentize_py_types\.Err\((.*)\)`")


def exports(module: str) -> dict[str, type[Any]]:
    """Import the author's module and make the classes that the bindings ask for.

    Args:
        module: the author's module.

    Raises:
        SetupError: it does not fit the world; all faults at once.
    """
    import_module(module)
    _serve_urllib()
    faults: list[str] = []
    classes = {}
    for name, protocol, space in _protocols():
        interface = "" if name == "WitWorld" else _kebab(name)
        cls = find(interface)
        if cls is None:
            where = f"interface {interface!r}" if interface else "the world"
            faults.append(
                f"no class of {module}.py is the plugin for {where}: put @plugin above one "
                "(from capwasm_guest import plugin)"
            )
        else:
            classes[name] = _implement(name, protocol, space, cls, faults)
    faults += _resources()
    if faults:
        raise SetupError("\n".join(faults))
    return classes


def _serve_urllib() -> None:
    """Have the standard library send through the host, where it is used and the network declared."""
    if "urllib.request" in sys.modules:
        with contextlib.suppress(ImportError):  # plugin.toml has no [[net]]
            import_module(f"{__package__}._urllib").install()


def _protocols() -> Iterator[tuple[str, type[Any], ModuleType]]:
    """Each class that the bindings want implemented, with the module that its names mean."""
    world = import_module("wit_world")
    spaces = [world]
    with contextlib.suppress(ImportError):  # a world may export functions and no interface
        spaces.insert(0, import_module("wit_world.exports"))
    for space in spaces:
        for name, value in list(vars(space).items()):
            if (
                isinstance(value, type)
                and value.__module__ == space.__name__
                and getattr(value, "_is_protocol", False)
                and any(_functions(value))
            ):
                yield name, value, space


def _functions(protocol: type[Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in vars(protocol).items():
        if (
            inspect.isfunction(value)
            and not name.startswith("__")
            and name != "_no_init_or_replace_init"
        ):
            yield name, value


def _implement(
    name: str, protocol: type[Any], space: ModuleType, cls: type[Any], faults: list[str]
) -> type[Any]:
    made: dict[str, Any] = {}
    holder = _Holder.of(cls)
    for function, declared in _functions(protocol):
        wanted = f"{function}{inspect.signature(declared)}"
        method = getattr(cls, function, None)
        if not callable(method):
            own = [n for n in dir(cls) if not n.startswith("_")]
            near = difflib.get_close_matches(function, own, 1)
            hint = f"; rename {near[0]}" if near else ""
            faults.append(f"{_place(cls)} has no method {wanted}, which wit/ exports{hint}")
            continue
        names = [p.name for p in inspect.signature(declared).parameters.values()]
        if fault := _arity(method, len(names)):
            faults.append(f"{_place(cls)}.{function}: wit/ wants {wanted}: {fault}")
            continue
        made[function] = _method(holder, function, declared, space)
    return type(name, (protocol,), made)


def _arity(method: Callable[..., Any], count: int) -> str:
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError as exc:
        return str(exc)
    except ValueError:
        pass  # written in C: nothing is known of it
    return "it must not be `async def`" if inspect.iscoroutinefunction(method) else ""


def _method(
    holder: _Holder, function: str, declared: Callable[..., Any], space: ModuleType
) -> Callable[..., Any]:
    names = vars(space)
    returns = typing.get_type_hints(declared, names).get("return", Any)
    error = _error_type(declared, space)

    def call(_self: Any, *args: Any) -> Any:
        started()
        try:
            value = getattr(holder.instance(), function)(*args)
        except Failure as exc:
            if error is _NO_ERR:
                raise TypeError(
                    f"{function} raised Failure, and WIT gives it no err: "
                    "write -> result<…, string> in wit/"
                ) from exc
            failure = convert(exc.value, error, f"Failure of {function}")
        except CapabilityError as exc:
            # What a capability said is an answer that the caller can read; where WIT has no text
            # for it, the plugin must decide what it means.
            if error is not str:
                raise
            failure = str(exc)
        else:
            return convert(value, returns, f"{function}()")
        raise err_type()(failure)

    return call


def _error_type(declared: Callable[..., Any], space: ModuleType) -> Any:
    """The type of the function's `err`: the bindings name it in the docstring alone."""
    found = _RAISES.search(declared.__doc__ or "")
    if found is None:
        return _NO_ERR
    text = found[1]
    if text == "None":
        return type(None)
    scope = {**vars(typing), **vars(space)}
    for prefix in ("wit_world.imports.", "wit_world.exports."):
        text = text.removeprefix(prefix)
    for packages in ("wit_world.exports", "wit_world.imports"):
        try:
            head = text.partition(".")[0].partition("[")[0]
            if "." in text and "[" not in text:
                return getattr(import_module(f"{packages}.{head}"), text.partition(".")[2])
            return eval(text, scope)  # noqa: S307  a type's name, from the generated bindings
        except (ImportError, AttributeError, NameError, SyntaxError):
            continue
    return Any


class _Holder:
    """Makes the author's object at the first call, when there are capabilities."""

    _all: typing.ClassVar[dict[type[Any], _Holder]] = {}

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls
        self._made: Any = None

    @classmethod
    def of(cls, author: type[Any]) -> _Holder:
        """One a class, though it may serve many interfaces."""
        return cls._all.setdefault(author, cls(author))

    def instance(self) -> Any:
        """The one object."""
        if self._made is None:
            self._made = self._cls()
        return self._made


def _resources() -> Iterator[str]:
    """Resources that the world exports: not to be had yet, and better told than found out."""
    try:
        package = import_module("wit_world.exports")
    except ImportError:
        return
    for info in pkgutil.iter_modules(package.__path__):
        module = import_module(f"{package.__name__}.{info.name}")
        for name, value in vars(module).items():
            ours = isinstance(value, type) and value.__module__ == module.__name__
            if ours and getattr(value, "_is_protocol", False):
                yield (
                    f"interface {info.name.replace('_', '-')!r} exports the resource {_kebab(name)!r}, which "
                    "this SDK can't serve yet: give out numbers, and keep the objects in a dict"
                )


def _place(cls: type[Any]) -> str:
    """The class as its author finds it: file, line and name."""
    try:
        line = inspect.getsourcelines(cls)[1]
        file = inspect.getsourcefile(cls) or ""
    except (OSError, TypeError):
        return cls.__name__
    return f"{file}:{line}: {cls.__name__}"


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
