"""Time, at the resolution that was granted."""

from .handle import ClockState, SystemTime, TimeSource
from .host import Clock
from .model import ClockClause

__all__ = ["Clock", "ClockClause", "ClockState", "SystemTime", "TimeSource"]
