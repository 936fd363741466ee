"""A process whose files temporarily cannot grow. It prints the outcomes of its SQLite store before, then and after."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import anyio

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import Outcome, Receipt
from bridgekit.stores import sqlite_stores
from tests.contract.stores import Worker, event_with_number, numbers
from tests.factories import THREAD


def limit(size_bytes: int) -> None:
    """Make the operating system refuse writes beyond this length, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def log_bytes(path: Path) -> int:
    return os.stat(f"{path}-wal").st_size  # noqa: PTH116  # only the descriptor is known


async def publish(worker: Worker, count: int) -> list[Receipt]:
    return [await worker.log.publish(event_with_number(THREAD, number, padding=2_000)) for number in range(count)]


async def main(path: Path) -> None:
    async with sqlite_stores(path, synchronous="full")() as stores:
        worker = Worker(stores.log)
        begun = await worker.join(THREAD)
        before = await publish(worker, 3)
        limit(log_bytes(path) + 20_000)
        meanwhile = await publish(worker, 30)
        ill = stores.log.healthy
        limit(resource.RLIM_INFINITY)
        after = await publish(worker, 3)
        replay = await worker.join(THREAD, begun.cursor)
        seqs = numbers(worker.received[THREAD])
    async with sqlite_stores(path)() as stores:
        back = Worker(stores.log)
        again = await back.join(THREAD, Cursor(begun.cursor.epoch, 0))
        refused = [receipt for receipt in meanwhile if receipt.outcome is Outcome.REFUSED]
        printed = {
            "before": [receipt.outcome for receipt in before],
            "meanwhile": [receipt.outcome for receipt in meanwhile],
            "reasons": sorted({receipt.reason for receipt in refused}),
            "links": sorted({receipt.link for receipt in refused if receipt.link}),
            "healthy": [ill, stores.log.healthy],
            "after": [receipt.outcome for receipt in after],
            "refused": [receipt.seq for receipt in refused],
            "last": after[-1].seq,
            "received": seqs,
            "replayed": [numbers(replay.frames), replay.gap],
            "again": [numbers(again.frames), again.gap],
        }
    print(json.dumps(printed), flush=True)  # noqa: T201  # to the parent


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), backend=sys.argv[2])
