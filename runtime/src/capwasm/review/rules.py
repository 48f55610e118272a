"""What the records of a version are worth today: one pure function, asked wherever it matters.

It is asked before a version may serve, at each load, and while it runs.  Nothing of its answer is
kept: a key that was revoked, expired or lost its scope since does not count, an exception whose
time is over does not either, and so what rested on them is refused from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from capwasm.errors import Fault

from .record import Record

__all__ = ["Standing", "Vote"]


@dataclass(frozen=True, slots=True)
class Vote:
    """One record, and what it is worth.

    Attributes:
        record: who signed what, when and why.
        name: what the trust store calls the key, or the beginning of its id if it holds none such.
        person: whose key it is: the name up to its slash; empty if it is nobody's.
        doubt: why it does not count, in one sentence; empty if it does.
    """

    record: Record
    name: str
    person: str
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a version may serve.

    Attributes:
        ok: whether it may.
        needs: what is missing or in the way, each with the line that would help; empty if ok.
        until: while ok, when that ends by itself at the latest; None if it does not.
        code: the stable code of what is most in the way; empty if ok.
        votes: every record of this version, oldest first, with what it is worth.
    """

    ok: bool
    needs: tuple[Fault, ...] = ()
    until: datetime | None = None
    code: str = ""
    votes: tuple[Vote, ...] = ()
