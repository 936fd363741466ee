"""Interfaces and small implementations of the language model, the tools, and the store of threads' owners."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Final, Protocol

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from bridgekit.chain.context import END_TIMEOUT_SECONDS
from bridgekit.chain.link_7_8_adapter import Emitter
from bridgekit.errors import FrameTooLarge, PayloadError, ThreadNotOwned, UnknownName
from bridgekit.ids import ThreadId, UserId, new_id
from bridgekit.transport.cancellation import is_cancelled

__all__ = [
    "LLMManager",
    "MemoryThreadStore",
    "OwnersInMemory",
    "PythonTools",
    "ScriptedModel",
    "ThreadSession",
    "ToolDispatcher",
    "claim_thread",
]


TOOL_THREADS: Final = 256
"""How many plain tools run at the same time. Further calls wait."""
_tool_threads: Final = RunVar[anyio.CapacityLimiter]("_tool_threads")
"""Limits the threads of tools, on each event loop. The limit of anyio's other threads, 40, applies to the plain
endpoints of Starlette, which must not wait for tools."""


class ThreadSession(Protocol):
    """The part of a database session that records which user owns a thread."""

    async def owner_of(self, thread_id: ThreadId) -> UserId | None:
        """Return the thread's owner, or None if the thread does not exist."""

    async def claim(self, thread_id: ThreadId, user_id: UserId) -> None:
        """Create the thread for the user if it does not exist. Raises ThreadNotOwned if another user owns it."""


SessionFactory = Callable[[], AbstractAsyncContextManager[ThreadSession]]
"""The type of `db_session_factory`, which opens a session for the duration of an `async with` block."""


class LLMManager(Protocol):
    """A language model."""

    async def ask(self, prompt: str) -> str:
        """Return the model's answer to the prompt."""


class ToolDispatcher(Protocol):
    """Runs tools for agents, and emits the events that show each call to the user."""

    async def dispatch(self, tool_name: str, parameters: Mapping[str, object], emitter: Emitter) -> object:
        """Emit `tool_executing`, run the tool, emit `tool_completed`, and return the tool's result.

        If the tool fails, `tool_completed` is still emitted, and the tool's error is raised.
        """


async def claim_thread(sessions: SessionFactory, thread_id: ThreadId, user_id: UserId) -> None:
    """Claim the thread for the user.

    Raises ThreadNotOwned if the thread belongs to another user, even if the store's `claim` does not raise it, or
    would replace the owner, or if the session suppresses errors.
    """
    owner: UserId | None = None
    async with sessions() as session:
        if await session.owner_of(thread_id) not in (None, user_id):
            raise ThreadNotOwned(thread_id, user_id)
        await session.claim(thread_id, user_id)
        owner = await session.owner_of(thread_id)
        if owner != user_id:
            raise ThreadNotOwned(thread_id, user_id)  # raised here, so that the session rolls back
    if owner != user_id:
        raise ThreadNotOwned(thread_id, user_id)


class OwnersInMemory:
    """A thread store that loses the owners when its process ends."""

    def __init__(self) -> None:
        self._owners: dict[ThreadId, UserId] = {}

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[ThreadSession]:
        yield self

    async def owner_of(self, thread_id: ThreadId) -> UserId | None:
        return self._owners.get(thread_id)

    async def claim(self, thread_id: ThreadId, user_id: UserId) -> None:
        if self._owners.setdefault(thread_id, user_id) != user_id:
            raise ThreadNotOwned(thread_id, user_id)


class MemoryThreadStore(OwnersInMemory):
    """The default thread store. An application with a durable store refuses to start with it."""


class ScriptedModel:
    """A deterministic model for tests and demonstrations: the seed and the prompt determine the answer."""

    THOUGHTS = (
        "I will look at what is known first.",
        "One source is not enough; I will compare two.",
        "The numbers must be checked before they are reported.",
        "This can be answered with one tool call.",
    )

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    async def ask(self, prompt: str) -> str:
        digest = hashlib.blake2b(f"{self._seed}:{prompt}".encode(), digest_size=4).digest()
        return self.THOUGHTS[int.from_bytes(digest) % len(self.THOUGHTS)]


class PythonTools:
    """Dispatches tools that are Python callables: coroutine functions run on the event loop, other callables in an OS
    thread.

    Python cannot stop a tool in an OS thread. If the run is cancelled, the call does not wait for the tool, and
    discards its result. At most TOOL_THREADS threads run tools, including those of cancelled runs.
    """

    def __init__(self, tools: Mapping[str, Callable[..., object | Awaitable[object]]]) -> None:
        self._tools = dict(tools)

    async def dispatch(self, tool_name: str, parameters: Mapping[str, object], emitter: Emitter) -> object:
        if tool_name not in self._tools:
            raise UnknownName("tool", tool_name, tuple(self._tools))
        call = ToolCall(emitter, tool_name, new_id())
        shown = False
        # Without `tool_completed`, a failed call would look unfinished to the user.
        try:
            await emitter.emit_tool_executing(tool_name, parameters, tool_call_id=call.tool_call_id)
            shown = True
            result = await self._run(tool_name, parameters)
        except GeneratorExit:
            raise  # The run's coroutine is being closed and must not wait.
        except BaseException as error:
            if shown or is_cancelled():  # a cancelled wait for room does not keep `tool_executing` from the user
                await call.completed(emitter.error_text(error), "error")
            raise
        try:
            await call.completed(result, "success")
        except Exception as error:
            await call.completed(emitter.error_text(error), "error")
            raise
        return result

    async def _run(self, tool_name: str, parameters: Mapping[str, object]) -> object:
        """Run the tool.

        A plain function runs in an OS thread, so that it does not block the event loop, which serves all sockets.
        """
        tool = self._tools[tool_name]
        if iscoroutinefunction(tool):
            return await tool(**parameters)
        if (limiter := _tool_threads.get(None)) is None:
            _tool_threads.set(limiter := anyio.CapacityLimiter(TOOL_THREADS))
        # The result is in a list, because trio refuses a function that returns a coroutine.
        call = partial(_listed, tool, parameters)
        [result] = await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        return await result if isawaitable(result) else result


def _listed(tool: Callable[..., object], parameters: Mapping[str, object]) -> list[object]:
    return [tool(**parameters)]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call in progress, with its start time."""

    emitter: Emitter
    tool_name: str
    tool_call_id: str
    started: float = field(default_factory=time.perf_counter)

    async def completed(self, result: object, status: str) -> None:
        """Emit `tool_completed`. If the run is cancelled, wait for room only for a limited time.

        Raises PayloadError or FrameTooLarge if no frame can carry the result. The error message names the tool.
        """
        cancelled = is_cancelled()
        try:
            with anyio.move_on_after(END_TIMEOUT_SECONDS if cancelled else None, shield=cancelled):
                await self.emitter.emit_tool_completed(
                    self.tool_name,
                    result,
                    tool_call_id=self.tool_call_id,
                    execution_time_ms=(time.perf_counter() - self.started) * 1_000,
                    status=status,
                )
        except PayloadError as error:
            raise PayloadError(error.event_type, f"result of tool {self.tool_name!r}: {error.problem}") from error
        except FrameTooLarge as error:
            what = f"result of tool {self.tool_name!r}"
            raise FrameTooLarge(what, error.size_bytes, error.limit_bytes) from error
