"""The processes of commands: what `caps.exec` is given in place of the fork server itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from capwasm.errors import ShimError
from capwasm_shim.layers import DEFAULT_REQUIRED, Layer, Spec

from .server import ShimServer
from .started import Started

__all__ = ["Commands"]


@dataclass(slots=True)
class Commands:
    """A `caps.exec.Spawner` on the fork server of a runtime.

    Attributes:
        server: that server.
        required: the layers that must hold, as the policy says; set before the first load.
    """

    server: ShimServer
    required: frozenset[Layer] = DEFAULT_REQUIRED

    def start(
        self, spec: Spec, fds: Sequence[tuple[str, int]], seconds: float, *, trial: bool = False
    ) -> Started:
        """Start a program in its sandbox, or only look whether it could be.

        Raises:
            ShimError: it can't be started here; also where the runtime is closed.
        """
        try:
            spec = replace(spec, required=self.required)
            return self.server.start(spec, fds, {"trial": trial}, seconds=seconds)
        except RuntimeError as exc:
            raise ShimError(str(exc)) from None
