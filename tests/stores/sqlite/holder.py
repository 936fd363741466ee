"""A process that holds the stores of a URL open until its standard input ends. Prints "open", or the error."""

from __future__ import annotations

import sys

import anyio
import anyio.to_thread

from bridgekit.errors import BridgekitError
from bridgekit.stores import stores_from


async def hold(url: str) -> None:
    try:
        async with stores_from(url)():
            print("open", flush=True)  # noqa: T201  # to the parent
            await anyio.to_thread.run_sync(sys.stdin.read)
    except BridgekitError as error:
        print(type(error).__name__, flush=True)  # noqa: T201  # to the parent


if __name__ == "__main__":
    anyio.run(hold, sys.argv[1], backend=sys.argv[2])
