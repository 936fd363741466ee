"""The process of a stack, with its sockets, its agents, or both."""

from __future__ import annotations

import argparse
import asyncio
from typing import Protocol, runtime_checkable

import msgspec

from benchmarks.agents import emit_load, emit_paced
from benchmarks.peers import Stack, peer
from benchmarks.peers.stack_context import StackContext
from benchmarks.process_messages import Emit, EmitPaced, FillStack, PacedReport, PrepareThreads
from bridgekit.serve.in_process import KEEPALIVE_SECONDS
from bridgekit_verify.harness.child_side import (
    CpuReply,
    CpuRequest,
    Done,
    MemoryReply,
    MemoryRequest,
    Ready,
    cpu_ns,
    raise_file_limit,
    read_requests,
    resident_kib,
    send,
)

Request = PrepareThreads | FillStack | Emit | EmitPaced | CpuRequest | MemoryRequest


@runtime_checkable
class FillableStack(Protocol):
    """A stack that must create threads before clients connect, and that can be filled with background load."""

    async def prepare(self, threads: range) -> None:
        """Create the threads."""

    async def fill(self, *, threads: int, mappings: int) -> None:
        """Add background threads to the measured threads, and active runs to the mapping."""


async def main() -> None:
    raise_file_limit()
    options = _options()
    context = StackContext(
        sockets=options.part != "agents",
        agents=options.part != "sockets",
        broker=options.broker,
        send_buffer_bytes=options.send_buffer_bytes,
        keepalive_seconds=options.keepalive_seconds,
    )
    async with peer(options.peer).serve(context) as stack:
        send(Ready(stack.port))
        async for request in read_requests(Request):
            send(await _reply(stack, request))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("--part", choices=("both", "sockets", "agents"), default="both")
    parser.add_argument("--broker", default="")
    parser.add_argument("--send-buffer-bytes", type=int, default=0)
    parser.add_argument("--keepalive-seconds", type=float, default=KEEPALIVE_SECONDS)
    return parser.parse_args()


async def _reply(stack: Stack, request: Request) -> msgspec.Struct:
    match request:
        case PrepareThreads(first, last):
            if isinstance(stack, FillableStack):
                await stack.prepare(range(first, last))
        case FillStack(threads, mappings):
            assert isinstance(stack, FillableStack)
            await stack.fill(threads=threads, mappings=mappings)
        case Emit(wave, kind):
            return await emit_load(stack, wave, kind)
        case EmitPaced(wave, per_second, within):
            return PacedReport(await emit_paced(stack, wave, per_second, within))
        case CpuRequest():
            return CpuReply(cpu_ns())
        case MemoryRequest():
            return MemoryReply(resident_kib())
    return Done()


if __name__ == "__main__":
    asyncio.run(main())
