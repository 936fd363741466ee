"""Interleave the stacks (A B C, A B C, …), so that other activity of the machine affects all stacks equally."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from benchmarks.peers import Peer
from benchmarks.stack_session import Session, session
from benchmarks.verification import WrongAnswer
from bridgekit.errors import BridgekitError

__all__ = ["Interleaving", "interleaving", "log_progress"]


class Interleaving:
    """Measures stacks in turn. A stack that fails is excluded from later rounds. The other stacks continue."""

    def __init__(self, sessions: AsyncExitStack, failed: dict[str, str]) -> None:
        self.failed = failed
        self._kept: dict[str, Session] = {}
        self._sessions = sessions

    async def each(
        self,
        peers: Sequence[Peer],
        measure: Callable[[Session], Awaitable[None]],
        *,
        rounds: int,
        fresh: bool,
    ) -> None:
        """Measure every stack in every round, in new processes (`fresh`) or in processes that keep running."""
        for _ in range(rounds):
            for peer in peers:
                if fresh:
                    await self.one(peer, measure)
                else:
                    await self.guarded(peer, partial(self._measure_kept, peer, measure))

    async def one(self, peer: Peer, measure: Callable[[Session], Awaitable[None]]) -> None:
        """Measure one stack in new processes."""

        async def measured() -> None:
            async with session(peer) as opened:
                await opened.warm_up()
                await measure(opened)

        await self.guarded(peer, measured)

    async def guarded(self, peer: Peer, measure: Callable[[], Awaitable[None]]) -> None:
        """Run a measurement unless the stack has failed before. Exclude the stack if the measurement fails."""
        if peer.name in self.failed:
            return
        try:
            await measure()
        except (WrongAnswer, BridgekitError) as error:
            self.failed[peer.name] = f"{type(error).__name__}: {error}"
            log_progress(f"  {peer.name} is excluded: {self.failed[peer.name]}")

    async def _measure_kept(self, peer: Peer, measure: Callable[[Session], Awaitable[None]]) -> None:
        if peer.name not in self._kept:
            opened = await self._sessions.enter_async_context(session(peer))
            await opened.warm_up()
            self._kept[peer.name] = opened
        await measure(self._kept[peer.name])


@asynccontextmanager
async def interleaving(failed: dict[str, str]) -> AsyncIterator[Interleaving]:
    """Interleave measurements while the block runs. Excluded stacks are added to `failed`, with the reason."""
    async with AsyncExitStack() as sessions:
        yield Interleaving(sessions, failed)


def log_progress(line: str) -> None:
    """Print a line of progress to standard error."""
    print(line, file=sys.stderr, flush=True)
