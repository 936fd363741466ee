"""A process that opens a SQLite store under a hindrance. It prints "open", or the error."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import anyio

from bridgekit.errors import BridgekitError
from bridgekit.stores import sqlite_stores
from tests.contract.stores import Worker
from tests.factories import THREAD

NOBODY = 65_534


def drop_privileges() -> None:
    """Let file permissions apply to this process, even if root started it."""
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def limit_files(size_bytes: int) -> None:
    """Make the operating system refuse writes beyond this length, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


async def main(path: Path, hindrance: str) -> None:
    async with sqlite_stores(path.with_name("warm-up.db"))() as stores:
        await Worker(stores.log).publish(THREAD)  # whatever is imported on first use must be readable
    if hindrance == "permissions":
        drop_privileges()
    else:
        limit_files(int(hindrance))
    try:
        async with sqlite_stores(path)() as stores:
            receipt = await Worker(stores.log).publish(THREAD)
            print("open", receipt.outcome, flush=True)  # noqa: T201  # to the parent
    except BridgekitError as error:
        print(f"{type(error).__name__}: {error}", flush=True)  # noqa: T201  # to the parent


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], backend=sys.argv[3])
