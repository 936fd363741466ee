"""Which file a test belongs to, and which files are started first."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LONGEST", "file_of", "start_order"]

WITH_A_CLUSTER: Final = (
    "tests/contract/",
    "tests/stores/redis/test_cluster.py",
    "tests/stores/redis/test_topology.py",
    "tests/verify/faults/test_redis_servers.py",
)
"""These count as one file, so that only one process starts a Redis cluster. Its servers use CPU time until it ends."""

IN_ANY_PROCESS: Final = (
    "tests/verify/check/acceptance/test_no_false_alarm.py",
    "tests/verify/check/acceptance/test_truth.py",
    "tests/verify/check/live/test_run_mutations.py",
)
"""Each test of these files counts as a file: the tests share no fixture, and one process alone would take too long."""

LONGEST: Final = (
    "tests/contract/",
    "tests/verify/check/live/test_backend_check.py",
    "tests/verify/probes/test_probes.py",
    "tests/serve/test_command.py",
    "build/executed/14_trust.ipynb",
    "tests/verify/report/test_building.py",
    "tests/verify/probes/test_injected_faults.py",
    "build/executed/13_scale.ipynb",
    "build/executed/12_faults.ipynb",
    "tests/serve/test_lost_workers.py",
    "tests/test_pytest_plugin.py",
    "tests/test_readme.py",
    "tests/serve/test_connection_limits.py",
    "build/executed/11_what_the_audit_missed.ipynb",
    "build/executed/10_before_and_after.ipynb",
    "tests/verify/report/test_claims.py",
    "tests/verify/report/test_execution.py",
    "tests/stores/redis/test_errors.py",
    "build/executed/15_other_backends.ipynb",
    "tests/verify/measure/test_error_origin.py",
    "tests/verify/probes/test_further_faults.py",
    "tests/verify/check/live/test_pitfalls_of_runs.py",
    "tests/verify/report/test_page_properties.py",
    "tests/verify/measure/test_tracing.py",
    "tests/verify/check/acceptance/test_no_false_alarm.py",
    "tests/verify/report/test_sentences.py",
    "tests/verify/check/live/test_live_command.py",
    "tests/verify/report/test_notebook_explorer.py",
    "tests/verify/capacity/test_testbed.py",
    "tests/mission_critical/",
    "build/executed/",
    "tests/test_main.py",
)
"""The files that take longest. They are started first, so that all processes end at about the same time."""

_EXECUTED: Final = re.compile(r"^tests/notebooks/test_executed\.py::.*\[(?P<notebook>.+\.ipynb)\]$")


def file_of(nodeid: str) -> str:
    """Return the file that a test belongs to; for a test of an executed notebook, the notebook."""
    if found := _EXECUTED.match(nodeid):
        return f"build/executed/{found['notebook']}"
    if nodeid.startswith(WITH_A_CLUSTER):
        return WITH_A_CLUSTER[0]
    return nodeid if nodeid.startswith(IN_ANY_PROCESS) else nodeid.partition("::")[0]


def start_order(nodeid: str) -> int:
    """Return a key that sorts tests by the order in which their files are started."""
    file = file_of(nodeid)
    return next((index for index, each in enumerate(LONGEST) if file.startswith(each)), len(LONGEST))
