"""Tests of plugins in this process, run again with each plugin in a process of its own.

They say nothing of where a guest runs, and must not have to: it is the same plugin to its core.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import World
from tests.stages import test_plugin, test_stopping

AGAIN = (
    test_plugin.test_a_pooled_instance_is_used_again,
    test_plugin.test_a_session_keeps_one_instance,
    test_plugin.test_a_single_instance_keeps_its_state_under_threads,
    test_plugin.test_acall_runs_beside_the_loop,
    test_plugin.test_cancelling_a_task_interrupts_the_guest,
    test_plugin.test_each_call_gets_a_fresh_instance_unless_the_manifest_says_otherwise,
    test_plugin.test_eviction_ends_calls_and_refuses_new_ones,
    test_plugin.test_recovers_from_a_trap_with_a_fresh_instance,
    test_plugin.test_revoking_a_grant_takes_effect_within_the_running_call,
    test_stopping.test_a_full_disk_does_not_keep_a_plugin_from_being_killed,
    test_stopping.test_a_trap_in_a_destructor_is_recorded,
    test_stopping.test_closing_the_runtime_ends_a_call_on_a_thread_of_the_cores_own,
    test_stopping.test_eviction_wakes_the_calls_that_wait_for_a_place,
    test_stopping.test_refuses_to_drop_what_is_no_resource,
)
globals().update({test.__name__: test for test in AGAIN})


class Apart(World):
    """A world whose policy wants a process of its own for everybody."""

    def policy(self, text: str) -> None:
        super().policy(text + '[isolation]\nprocess = ["*"]\n')


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = Apart(tmp_path)
    yield made
    made.close()
    loads = [e for e in made.events("load") if e["verdict"] == "allowed"]
    assert all("process" in e["details"] for e in loads)
