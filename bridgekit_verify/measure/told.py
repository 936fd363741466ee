"""What a process of an experiment is told by the one that began it: a line at a time, on its standard input."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Final

import anyio

__all__ = ["told"]

_IN: Final = 0
CHUNK_BYTES: Final = 65_536


async def told() -> AsyncIterator[bytes]:
    """Each line, without its end, until there are no more; what is torn off at the end is none.

    Not by a thread that reads: one that waits for the next line could not be stopped.
    """
    torn = b""
    while True:
        await anyio.wait_readable(_IN)
        if not (came := os.read(_IN, CHUNK_BYTES)):
            return
        *lines, torn = (torn + came).split(b"\n")
        for line in lines:
            yield line
