"""What a plugin tried and was refused becomes the least manifest that would ask for it."""

from __future__ import annotations

from .attempt import Attempt, Table
from .learner import Learner, Proposal

__all__ = ["Attempt", "Learner", "Proposal", "Table"]
