"""The load client's process. It opens sockets, reads, and says what came: see `benchmarks.pipe`."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from benchmarks.load.client import Load, Place
from benchmarks.pipe import answer, commands, open_files_at_most


async def main() -> None:
    open_files_at_most()
    load = Load()
    answer(ready=True)
    async for asked in commands():
        answer(**await _ANSWERED[asked.pop("do")](load, **asked))
    load.close()


async def _connect(load: Load, dialect: str, port: int, first: int, last: int, **how: int) -> dict[str, Any]:
    await load.connect(Place(dialect, port), range(first, last), **how)
    return {"sockets": len(load.sockets)}


async def _expect(load: Load, events: int) -> dict[str, Any]:
    load.expect(events)
    # What was judged before is gone: let the collector see to it now, and not while the clock runs.
    gc.collect()
    return {"expecting": events}


async def _receive(load: Load, within: float) -> dict[str, Any]:
    cpu, wall = time.process_time_ns(), time.monotonic_ns()
    complete = await load.all_done(within)
    cpu, wall = time.process_time_ns() - cpu, time.monotonic_ns() - wall
    sizes = [len(event) for each in load.reading for event in each.dialect.events]
    return {
        "complete": complete,
        "done_ns": load.done_ns,
        "busy": cpu / wall,
        "read": len(sizes),
        "event_bytes": sum(sizes) / max(len(sizes), 1),
    }


async def _judge(load: Load, first: int, runs: int, padding_bytes: int) -> dict[str, Any]:
    return {"verdict": load.judged(first, runs, padding_bytes)}


async def _arrivals(load: Load) -> dict[str, Any]:
    return {"arrivals": load.arrivals()}


async def _stall(load: Load) -> dict[str, Any]:
    load.stall()
    return {"stalled": 1}


async def _cut_off(load: Load) -> dict[str, Any]:
    return {"cut_off": await load.cut_off()}


_ANSWERED: Final[Mapping[str, Callable[..., Awaitable[dict[str, Any]]]]] = {
    "connect": _connect,
    "expect": _expect,
    "receive": _receive,
    "judge": _judge,
    "arrivals": _arrivals,
    "stall": _stall,
    "cut off": _cut_off,
}

if __name__ == "__main__":
    asyncio.run(main())
