"""Measure the import time of bridgekit, and count the large modules that the import loads."""

from __future__ import annotations

import sys
from statistics import median
from typing import Final

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.measures.interleaving import log_progress
from bridgekit_verify.harness.processes import command_output

__all__ = ["imports"]

HEAVY: Final = ("pandas", "matplotlib", "jupyter_client", "jupyterlab", "IPython", "nbclient", "nbformat", "numpy")
CASES: Final = {
    "import bridgekit": "import bridgekit",
    "all that an application names": "from bridgekit import *",
}
CODE: Final = """
import sys, time
begun = time.perf_counter()
{code}
print((time.perf_counter() - begun) * 1000, len({heavy!r} & sys.modules.keys()))
"""


def imports(series: Series, *, rounds: int) -> None:
    """Measure each import in a new interpreter. The start of the interpreter is not included."""
    for _ in range(rounds):
        for case, code in CASES.items():
            ms, heavy = _imported(CODE.format(code=code, heavy=set(HEAVY)))
            series.add(SeriesKey("import ms", "bridgekit", case), ms)
            series.add(SeriesKey("import: heavy modules", "bridgekit", case), heavy)
    for case in CASES:
        log_progress(f"  {case}: {median(series[SeriesKey('import ms', 'bridgekit', case)]):.0f} ms")


def _imported(code: str) -> tuple[float, float]:
    ms, heavy = command_output(sys.executable, "-c", code).split()
    return float(ms), float(heavy)
