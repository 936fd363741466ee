"""The process of a stack: its sockets, its agents, or both. Told what to do through `benchmarks.pipe`."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from benchmarks.agents import speak, speak_in_time
from benchmarks.peers import Stack, peer
from benchmarks.peers.place import Place
from benchmarks.pipe import answer, commands, cpu_ns, open_files_at_most, resident_kib
from benchmarks.workload import Wave
from bridgekit.serve.in_process import KEEPALIVE_SECONDS


@runtime_checkable
class Prepares(Protocol):
    """A stack that must know threads before their users come, or can be filled to see what that costs."""

    async def prepare(self, threads: range) -> None:
        """Make the threads."""

    async def fill(self, *, threads: int, mappings: int) -> None:
        """Have so many live threads, beside those that are measured, and so many runs in the mapping."""


async def main() -> None:
    open_files_at_most()
    options = _options()
    place = Place(
        sockets=options.part != "agents",
        agents=options.part != "sockets",
        broker=options.broker,
        send_buffer_bytes=options.send_buffer_bytes,
        keepalive_seconds=options.keepalive_seconds,
    )
    async with peer(options.peer).up(place) as stack:
        answer(port=stack.port)
        async for asked in commands():
            await _do(stack, **asked)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("--part", choices=("both", "sockets", "agents"), default="both")
    parser.add_argument("--broker", default="")
    parser.add_argument("--send-buffer-bytes", type=int, default=0)
    parser.add_argument("--keepalive-seconds", type=float, default=KEEPALIVE_SECONDS)
    return parser.parse_args()


async def _do(stack: Stack, *, do: str, **asked: Any) -> None:
    match do:
        case "prepare":
            if isinstance(stack, Prepares):
                await stack.prepare(range(asked["first"], asked["last"]))
            answer(prepared=True)
        case "fill":
            assert isinstance(stack, Prepares)
            await stack.fill(threads=asked["threads"], mappings=asked["mappings"])
            answer(filled=True)
        case "speak":
            answer(**asdict(await speak(stack, Wave(**asked["wave"]), asked["kind"])))
        case "speak in time":
            told = await speak_in_time(stack, Wave(**asked["wave"]), asked["per_second"], asked["within"])
            answer(told=told)
        case "cpu":
            answer(cpu_ns=cpu_ns())
        case "memory":
            answer(rss_kib=resident_kib())
        case _:
            raise LookupError(do)


if __name__ == "__main__":
    asyncio.run(main())
