"""From a plugin's bytes to what is compiled in their place, if the lane is of use to it.

Its types are read from a skeleton of it, which compiles in no time.  All that happens here to the
untrusted bytes is that they are cut into sections and numbered; what is compiled is compiled in the
process apart, and the engine checks the whole as it would check the plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from capwasm.engine import types as t
from capwasm.errors import LinkError

from .append import compose
from .binary import OddBinary, skeleton
from .choose import chosen
from .wire import NotLaned, without_lane

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plugin with the lane.

    Attributes:
        code: its bytes.   types: those of the plugin in it.
    """

    code: bytes
    types: t.ComponentTypes

    def check(self, composed: t.ComponentTypes) -> None:
        """Pass if what was compiled asks and offers what the plugin does, and no more.

        Raises:
            NotLaned: it does not.
        """
        if without_lane(composed) != self.types:
            raise NotLaned("with the lane it would not have its own types")


def prepare(
    code: bytes | memoryview, pages: int, read: Callable[[bytes], t.ComponentTypes]
) -> Prepared:
    """That plugin with the lane.

    Args:
        code: a component, as it came.
        pages: how large the lane's memory may become, in pages of 64 KiB.
        read: compiles a component that is never run, and reads its types.

    Raises:
        NotLaned: no function of it would gain, or it is of a kind that can't be composed.
        ArtifactError: `read`'s.
    """
    try:
        types = read(skeleton(code))
        functions = chosen(types)
        if not functions:
            raise NotLaned("none of its functions takes or returns a list")
        return Prepared(compose(code, types, functions, pages), types)
    except OddBinary as exc:
        raise NotLaned(str(exc)) from None
    except LinkError as exc:
        raise NotLaned(exc.message) from None
