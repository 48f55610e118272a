"""Every attempt, in one tuple."""

from __future__ import annotations

from tests.escape import (
    attempts_files,
    attempts_kernel,
    attempts_limits,
    attempts_net,
    attempts_processes,
)

ATTEMPTS = (
    *attempts_files.ATTEMPTS,
    *attempts_net.ATTEMPTS,
    *attempts_processes.ATTEMPTS,
    *attempts_kernel.ATTEMPTS,
    *attempts_limits.ATTEMPTS,
)
