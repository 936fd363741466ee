"""The event loop of the tests refuses calls from other threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest

from tests.backends import ASYNCIO, CheckedEventLoop


def complete_a_future(loop: asyncio.AbstractEventLoop) -> None:
    future = loop.create_future()
    future.add_done_callback(print)
    future.set_result(None)


@pytest.mark.parametrize("anyio_backend", [ASYNCIO], ids=["asyncio"])
@pytest.mark.parametrize(
    "call",
    [lambda loop: loop.call_soon(print), lambda loop: loop.call_later(0, print), complete_a_future],
    ids=["call soon", "call later", "complete a future"],
)
async def test_call_from_another_thread_is_an_error(call: Callable[[asyncio.AbstractEventLoop], object]) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CheckedEventLoop)
    with pytest.raises(RuntimeError, match="from another thread"):
        await anyio.to_thread.run_sync(call, loop)
