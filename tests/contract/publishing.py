"""A process that publishes to the stores of a URL until it is killed, and prints what was acknowledged."""

from __future__ import annotations

import itertools
import sys
from typing import Final

import anyio

from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.stores import Stores, stores_from
from bridgekit.transport.log import Retention
from tests.contract.stores import Worker

RETENTION: Final = Retention(events=1_000_000, size_bytes=10**9)
THREADS: Final = tuple(ThreadId(f"thread {number}") for number in range(5))


async def publish(worker: Worker, numbers: itertools.count[int], thread: ThreadId) -> None:
    while True:
        number = next(numbers)
        receipt = await worker.publish(thread, number)
        if receipt.kept:
            print_line("event", thread, receipt.epoch, receipt.seq, number)


async def register(stores: Stores, numbers: itertools.count[int]) -> None:
    mapping = RunThreadMappingService(stores.routes)
    while True:
        run, thread = RunId(f"run_{next(numbers)}"), THREADS[0]
        await mapping.register_mapping(run, thread)
        print_line("route", run, thread)
        if await stores.used_tickets.mark_used(f"ticket {run}", 60.0):
            print_line("ticket", stores.used_tickets.generation)


def print_line(*words: object) -> None:
    print(*words, sep="\t", flush=True)  # noqa: T201  # to the parent


async def main(url: str) -> None:
    async with stores_from(url, retention=RETENTION)() as stores, anyio.create_task_group() as tasks:
        worker, numbers = Worker(stores.log), itertools.count()
        for thread in THREADS:
            await worker.join(thread)
            for _ in range(4):
                tasks.start_soon(publish, worker, numbers, thread)
        tasks.start_soon(register, stores, numbers)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], backend=sys.argv[2])
