"""An event is made into bytes once, and every socket of its thread is given the same ones."""

from __future__ import annotations

import pytest

from bridgekit.signals import Cursor
from tests.performance.counting import Calls
from tests.performance.fixture import EVENTS, Stage, speak
from tests.performance.task_switches import settled


@pytest.mark.parametrize("sockets", [0, 1, 10, 100])
async def test_event_is_encoded_once_however_many_sockets_read_it(stage: Stage, sockets: int) -> None:
    thread = stage.fresh()
    readers = await stage.readers(sockets, thread)
    with Calls() as seen:
        await speak(stage.agent(thread), EVENTS)
        await settled()
    assert seen.encodings == EVENTS
    for reader in readers:
        assert [frame["seq"] for frame in reader.read(EVENTS)] == [1, 2, 3, 4, 5]


async def test_event_is_not_encoded_again_for_who_resumes(stage: Stage) -> None:
    thread = stage.fresh()
    (reader,) = await stage.readers(1, thread)
    await speak(stage.agent(thread), EVENTS)
    with Calls() as seen:
        (resumed,) = await stage.readers(1, thread, Cursor(reader.hello["epoch"], 0))
    assert [frame["seq"] for frame in resumed.read(EVENTS)] == [1, 2, 3, 4, 5]
    confirmation = 1
    assert seen.encodings == confirmation
