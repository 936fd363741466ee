"""The second process: it answers requests, and it ends when its input closes or its parent kills it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bridgekit.events import Outcome
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.harness.processes import ProcessExited
from bridgekit_verify.studies import second_worker
from bridgekit_verify.studies.run_ids_across_processes import second_process
from bridgekit_verify.studies.second_worker import ProcessRequest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # both processes run on asyncio


def about(thread: str | None, *, variant: str = "sound", register: bool = False) -> ProcessRequest:
    thread_id = None if thread is None else ThreadId(thread)
    action: second_worker.Action = "register" if register else "notify"
    return ProcessRequest(variant=variant, do=action, run_id=RunId("run_1"), thread_id=thread_id, request="q")


async def test_second_process_answers_like_the_first_and_ends_with_the_block() -> None:
    async with second_process() as worker:
        assert (await worker.request(about(None))).outcome is Outcome.UNROUTABLE
        assert (await worker.request(about("thread_1", register=True))).thread_id == "thread_1"
        assert (await worker.request(about("thread_2", register=True))).outcome is Outcome.REFUSED
        unread = await worker.request(about(None))
        assert (unread.outcome, unread.thread_id) == (Outcome.NO_SUBSCRIBER, "thread_1")
        # The dict accepts what the sound service refuses.
        for thread in ("thread_1", "thread_2"):
            assert (await worker.request(about(thread, variant="fix 3", register=True))).outcome is Outcome.SENT
        assert (await worker.request(about(None, variant="fix 3"))).thread_id == "thread_2"
    assert worker.process.exit_code is not None
    with pytest.raises(ProcessExited):
        await worker.request(about(None))


async def test_request_to_a_killed_process_raises_process_exited() -> None:
    async with second_process() as worker:
        await worker.process.kill()
        with pytest.raises(ProcessExited):
            await worker.request(about(None))


def test_process_ends_when_its_input_closes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", second_worker.__name__], input=b"", capture_output=True, check=True, timeout=60
    )
    assert done.stdout.count(b"\n") == 1
