"""Run ids that one process registered, asked of another: a real one, started here, asked over pipes, and killed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import anyio
import msgspec
import pandas as pd
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from bridgekit.chain.context import RunContext
from bridgekit.errors import BridgekitError
from bridgekit.transport.client import EventClient, connect
from bridgekit_verify.measure.history import key_of
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.workload import Owned, family
from bridgekit_verify.studies import second_worker
from bridgekit_verify.studies.second_worker import SERVED, Answer, Question, Ready, answer, asked_about
from bridgekit_verify.studies.stage import Stage, stage

__all__ = ["Asked", "Worker", "WorkerGone", "ask_processes", "process_table", "second_process"]

START_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 10.0
LINE_BYTES: Final = 65_536


class WorkerGone(BridgekitError):
    """The second process ended before it answered. What it had to say stands on the standard error."""

    def __init__(self) -> None:
        super().__init__("the second process ended before it answered")


class Place(Protocol):
    """A process that can be asked."""

    def url(self, variant: str) -> str: ...

    async def ask(self, question: Question) -> Answer: ...


@dataclass(frozen=True)
class Here:
    """This process, with one chain served in it."""

    served: Stage

    def url(self, variant: str) -> str:
        return self.served.url

    async def ask(self, question: Question) -> Answer:
        return await answer(self.served.app, question)


class Worker:
    """Another process, held by its handle."""

    def __init__(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise WorkerGone
        self.process = process
        self._questions = process.stdin
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._urls: dict[str, str] = {}

    def url(self, variant: str) -> str:
        return self._urls[variant]

    async def ready(self) -> None:
        """Wait until it serves. TimeoutError, or WorkerGone."""
        with anyio.fail_after(START_SECONDS):
            self._urls = msgspec.json.decode(await self._line(), type=Ready).urls

    async def ask(self, question: Question) -> Answer:
        """TimeoutError where no answer comes, WorkerGone where none can."""
        with anyio.fail_after(ANSWER_SECONDS):
            try:
                await self._questions.send(msgspec.json.encode(question) + b"\n")
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise WorkerGone from error
            return msgspec.json.decode(await self._line(), type=Answer)

    async def _line(self) -> bytes:
        try:
            return await self._lines.receive_until(b"\n", LINE_BYTES)
        except (anyio.IncompleteRead, anyio.ClosedResourceError) as error:
            raise WorkerGone from error


@asynccontextmanager
async def second_process() -> AsyncIterator[Worker]:
    """Start `second_worker` for the length of a block. At its end the process is killed, and gone."""
    process = await anyio.open_process([sys.executable, "-m", second_worker.__name__], stderr=None)
    try:
        worker = Worker(process)
        await worker.ready()
        yield worker
    finally:
        with anyio.CancelScope(shield=True):
            # It may have ended by itself.
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()


@dataclass(frozen=True)
class Asked:
    """Some runs' events, emitted in one process."""

    variant: str
    process: str
    says: str
    """What the event says of where it belongs."""
    found: Rate
    """Events for which that process found the right thread."""
    arrived: Rate
    """Events that their user's socket at that process read."""
    why_not: str


async def ask_processes(*, users: int = 5, runs: int = 20, seed: int = 0) -> list[Asked]:
    """Register runs here, then emit an event of each here, in a second process, and there again after a restart.

    Done with Fix 3's dict and with the sound chain, whose mapping is a memory store too. Every user has a socket at
    the process that is asked, so that nothing but the route is missing.
    """
    threads = family("thread_123", users, seed=seed)
    asked = []
    opened: dict[str, list[RunContext]] = {}
    for name, row in SERVED.items():
        async with stage(row, (), seed=seed) as first:
            opened[name] = [
                await first.open_run(threads[number % users], f"question {number + 1}") for number in range(runs)
            ]
            asked.append(await _emitted(Here(first), name, "the one that registered", opened[name]))
    async with second_process() as second:
        asked += await _both(second, "a second one", opened)
        for name, contexts in opened.items():
            for run in contexts:
                await second.ask(_question(name, run, "register", carried=True))
            asked.append(await _emitted(second, name, "a second one, registered there", contexts))
    async with second_process() as again:
        asked += await _both(again, "the second one, restarted", opened)
    return sorted(asked, key=lambda row: list(SERVED).index(row.variant))


async def _both(place: Place, process: str, opened: dict[str, list[RunContext]]) -> list[Asked]:
    return [
        await _emitted(place, name, process, contexts, carried=carried)
        for name, contexts in opened.items()
        for carried in (False, True)
    ]


async def _emitted(
    place: Place, variant: str, process: str, runs: Sequence[RunContext], *, carried: bool = False
) -> Asked:
    owners = dict.fromkeys(Owned(run.thread_id, run.user_id) for run in runs)
    async with AsyncExitStack() as stack:
        clients = {}
        for owned in owners:
            await place.ask(
                Question(variant=variant, do="open thread", thread_id=owned.thread_id, user_id=owned.user_id)
            )
            opened = connect(place.url(variant), user_id=owned.user_id, thread_id=owned.thread_id)
            clients[owned] = await stack.enter_async_context(opened)
        answers = [await place.ask(_question(variant, run, "notify", carried=carried)) for run in runs]
        await place.ask(Question(variant=variant, do="drain"))
        read = {(owned, key) for owned, client in clients.items() for key in await _keys(client)}
    found = sum(said.thread_id == run.thread_id for said, run in zip(answers, runs, strict=True))
    arrived = sum((Owned(run.thread_id, run.user_id), asked_about(run.request)) in read for run in runs)
    return Asked(
        variant,
        process,
        "run id and thread" if carried else "run id",
        Rate(found, len(runs)),
        Rate(arrived, len(runs)),
        "; ".join(dict.fromkeys(f"link {said.link}: {said.reason}" for said in answers if said.link)),
    )


async def _keys(client: EventClient) -> list[object]:
    return [key_of(event.type, event.payload) async for event in client]


def _question(variant: str, run: RunContext, do: second_worker.Deed, *, carried: bool) -> Question:
    thread = run.thread_id if carried else None
    return Question(variant=variant, do=do, run_id=run.run_id, thread_id=thread, request=run.request)


def process_table(asked: Sequence[Asked]) -> pd.DataFrame:
    """One row a question put to a process.

    Columns: chain, process, the event says, found its thread, reached its user, of, from %, to % (95 % Wilson
    interval of those that reached their user), why not.
    """
    return pd.DataFrame(
        {
            "chain": row.variant,
            "process": row.process,
            "the event says": row.says,
            "found its thread": row.found.k,
            "reached its user": row.arrived.k,
            "of": row.arrived.n,
            "from %": round(100 * row.arrived.interval[0], 1),
            "to %": round(100 * row.arrived.interval[1], 1),
            "why not": row.why_not,
        }
        for row in asked
    )
