"""Child processes that are spoken to by lines of JSON. Each wait is bounded; each child is ended by its own handle."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec

from benchmarks.pipe import LINE_BYTES

__all__ = ["Child", "ChildFailed", "child"]

START_SECONDS: Final = 30.0
ASK_SECONDS: Final = 60.0
END_SECONDS: Final = 3.0
TOLD_BYTES: Final = 2_000


class ChildFailed(Exception):
    """A process of a benchmark ended, or did not answer in time; with the end of what it wrote to its error output."""


class Child:
    """A process that answers one question at a time."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, errors: Any) -> None:
        self.name = name
        self._process = process
        self._errors = errors
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, do: str, *, seconds: float = ASK_SECONDS, **what: object) -> dict[str, Any]:
        """Have it do something, and give its answer. ChildFailed where there is none in time."""
        assert self._process.stdin is not None
        async with self._turn:
            self._process.stdin.write(msgspec.json.encode({"do": do, **what}) + b"\n")
            return await self.heard(seconds, do)

    async def heard(self, seconds: float, what: str = "start") -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ChildFailed(f"{self.name} did not {what} within {seconds:g} s{self._said()}") from None
        if not line:
            raise ChildFailed(f"{self.name} ended while it was to {what}{self._said()}")
        return msgspec.json.decode(line, type=dict[str, Any])

    def _said(self) -> str:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()[-TOLD_BYTES:]
        return f":\n{said}" if said else ""

    async def end(self) -> None:
        """Let it come to its end; kill it where it does not."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def child(
    name: str, module: str, *arguments: str, python: str = sys.executable
) -> AsyncIterator[tuple[Child, dict[str, Any]]]:
    """A module of ours as a process for the length of a block, and what it says when it is ready."""
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            python,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LINE_BYTES,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started = Child(name, process, errors)
        try:
            yield started, await started.heard(START_SECONDS)
        finally:
            await started.end()
