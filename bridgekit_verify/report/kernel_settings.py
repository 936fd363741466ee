"""Settings of the kernel that executes a notebook, for all notebooks."""

from __future__ import annotations

import gc
import sys
from typing import Final

__all__ = ["YOUNG_OBJECTS", "collect_garbage_less_often"]

YOUNG_OBJECTS: Final = 50_000
"""How many more objects are created than deleted before a kernel looks for garbage; Python's own value is 700."""


def collect_garbage_less_often() -> None:
    """Let this kernel spend less time on garbage collection. Without a kernel, do nothing.

    A kernel keeps the results of all cells and the objects of pandas and matplotlib, and each full collection visits
    all of them. In notebook 14, a third of the CPU time was garbage collection.
    """
    if "IPython" not in sys.modules:
        return
    from IPython.core.getipython import get_ipython

    if get_ipython() is not None:
        gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
