"""What an attempt is: what the hostile plugin does, which walls stop it, and how one sees from outside.

Each row names all the walls that stand in its way.  The test tears down every wall but one, for each
in turn, and that one must stop it alone; then it tears down all of them, and the attempt must
succeed.  So no row can pass because of something that nobody has named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from capwasm_shim.layers import Layer, Limits
from tests.escape.prey import Prey
from tests.escape.shooting import Shot

Goal = Callable[[Prey, Shot], bool]
"""Whether the attempt got what it was after, by what can be seen from outside."""


# What the kernel says where it was built without the thing: no wall of ours says so.
LACKS = frozenset({"ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"})


@dataclass(frozen=True)
class Attempt:
    """One.

    Attributes:
        name: what it tries.
        cases: of docs/security-cases.md.
        does: the message for the plugin.
        walls: each alone stops it; names of layers (with "+" between those that only count
            together), and what the plugin then gets: the beginning of its answer, with "|" between
            several.
        goal: see above.
        free: without any of the walls: "" if the goal is reached; else what the kernel answers to
            arguments that are of no use to anybody, which shows that they got to it.
        never: why it must not, or cannot, run without any of its walls.
        needs: what must hold on this machine, for the attempt to say something.
    """

    name: str
    cases: tuple[str, ...]
    does: Callable[[Prey], bytes]
    walls: Mapping[str, str]
    goal: Goal = field(default=lambda _, shot: shot.answer.startswith("ok"))
    topic: str = "calls"
    free: str = ""
    never: str = ""
    limits: Limits = field(default_factory=Limits)
    early: bool = False
    needs: Callable[[Prey], bool] = lambda _: True

    def groups(self) -> dict[frozenset[Layer], str]:
        """The walls, as layers."""
        return {
            frozenset(Layer(part) for part in name.split("+")): said
            for name, said in self.walls.items()
        }


def got(shot: Shot, said: str) -> bool:
    """Whether the answer is one of those."""
    return any(shot.answer.startswith(each) for each in said.split("|"))


# -- goals ------------------------------------------------------------------------------------------


def reads(prey: Prey, shot: Shot) -> bool:
    """It has the token."""
    return prey.token in shot.evidence or prey.token.hex().encode() in shot.evidence


def heard(name: str) -> Goal:
    """Somebody came to that listener."""
    return lambda prey, _: prey.heard(name)


def touches(prey: Prey, _: Shot) -> bool:
    """A file of the host was made, changed or removed."""
    return prey.state() != prey.at_first


def hits(prey: Prey, _: Shot) -> bool:
    """A process of the host got a signal."""
    return prey.hits()


def harms(prey: Prey, _: Shot) -> bool:
    """A process of the host was written to."""
    return not prey.unharmed()


def becomes(name: str) -> Goal:
    """Something of the plugin's own process has changed, as the host sees it."""
    return lambda _, shot: name in shot.changed


def ends(how: str) -> Goal:
    """The process ended in that way."""
    return lambda _, shot: shot.answer == how


def does_all(count: int) -> Goal:
    """So many, and no fewer."""
    return lambda _, shot: shot.answer.startswith(f"ok:{count}:") or shot.answer == f"ok:{count}"
