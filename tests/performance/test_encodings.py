"""An event is encoded once, and every socket of its thread gets the same bytes."""

from __future__ import annotations

import pytest

from bridgekit.cursors_and_gaps import Cursor
from tests.performance.counting import Calls
from tests.performance.fixture import EVENTS, ServedFixture, emit_events
from tests.performance.task_switches import wait_settled


@pytest.mark.slow
@pytest.mark.parametrize("sockets", [0, 1, 10, 100])
async def test_event_is_encoded_once_for_any_number_of_sockets(stage: ServedFixture, sockets: int) -> None:
    thread = stage.fresh()
    readers = await stage.readers(sockets, thread)
    with Calls() as seen:
        await emit_events(stage.agent(thread), EVENTS)
        await wait_settled()
    assert seen.encodings == EVENTS
    for reader in readers:
        assert [frame["seq"] for frame in reader.read(EVENTS)] == [1, 2, 3, 4, 5]


async def test_event_is_not_encoded_again_for_a_resuming_client(stage: ServedFixture) -> None:
    thread = stage.fresh()
    (reader,) = await stage.readers(1, thread)
    await emit_events(stage.agent(thread), EVENTS)
    with Calls() as seen:
        (resumed,) = await stage.readers(1, thread, Cursor(reader.confirmation["epoch"], 0))
    assert [frame["seq"] for frame in resumed.read(EVENTS)] == [1, 2, 3, 4, 5]
    confirmation = 1
    assert seen.encodings == confirmation
