"""Ends a worker that does not answer its parent: the call holds the interpreter's lock, as a slow import may."""

from __future__ import annotations

import ctypes
import multiprocessing
import os

from uvicorn.config import STARTUP_FAILURE

from tests.served_application import app

__all__ = ["app"]

SECONDS = 2
"""More than the parent's interval between two questions."""

if multiprocessing.parent_process() is not None:
    ctypes.PyDLL(None).sleep(SECONDS)
    os._exit(STARTUP_FAILURE)
