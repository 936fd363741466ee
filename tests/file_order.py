"""Which file a test belongs to, and which files are started first."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LONGEST", "file_of", "start_order"]

LONGEST: Final = (
    "tests/notebooks/test_odd_parameters.py",
    "tests/notebooks/test_small_parameters.py",
    "build/executed/13_scale.ipynb",
    "tests/verify/check/live/test_backends.py",
    "tests/verify/check/acceptance/test_no_false_alarm.py",
    "tests/verify/probes/test_injected_faults.py",
    "tests/verify/probes/test_further_faults.py",
    "build/executed/12_faults.ipynb",
    "tests/serve/test_lost_workers.py",
    "tests/serve/test_command.py",
    "tests/verify/check/live/test_live_command.py",
    "build/executed/14_trust.ipynb",
    "tests/verify/capacity/test_testbed.py",
    "tests/verify/faults/trials/test_matrix.py",
    "tests/verify/validation/test_localization.py",
)
"""The files that take longest. They are started first, so that all processes end at about the same time."""

_EXECUTED: Final = re.compile(r"^tests/notebooks/test_executed\.py::.*\[(?P<notebook>.+\.ipynb)\]$")


def file_of(nodeid: str) -> str:
    """Return the file that a test belongs to; for a test of an executed notebook, the notebook."""
    if found := _EXECUTED.match(nodeid):
        return f"build/executed/{found['notebook']}"
    return nodeid.partition("::")[0]


def start_order(nodeid: str) -> int:
    """Return a key that sorts tests by the order in which their files are started."""
    file = file_of(nodeid)
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)
