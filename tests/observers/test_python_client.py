"""Compares bridgekit's client with websocket-client in the same run. On asyncio only, as uvicorn requires."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from bridgekit_verify.measure.experiment import measure
from tests.observers import python_client
from tests.observers.independent_clients import ClientLauncher, TranscriptPair, program
from tests.observers.scenarios import SCENARIOS, Scenario, assert_transcripts_agree, every_scenario
from tests.observers.transcripts import Line, differences

pytestmark = pytest.mark.slow

CLIENT = program(sys.executable, str(Path(python_client.__file__)))
LEAK = SCENARIOS[1]

Tampering = Callable[[Line], list[Line]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@every_scenario
async def test_websocket_client_reads_what_our_client_reads(scenario: Scenario) -> None:
    await assert_transcripts_agree(scenario, CLIENT)


def corrupted(line: Line) -> list[Line]:
    """Add a byte to a frame, which still decodes to an event."""
    return [msgspec.structs.replace(line, text=(line.text or "") + " ")]


def lost(line: Line) -> list[Line]:
    return []


def duplicated(line: Line) -> list[Line]:
    return [line, line]


def misrouted(line: Line) -> list[Line]:
    return [msgspec.structs.replace(line, socket=line.socket + 1)]


def tampering_client(client: ClientLauncher, tamper: Tampering, *, where: Callable[[Line], bool]) -> ClientLauncher:
    """Return the client with a change to the first output line that `where` selects."""

    @asynccontextmanager
    async def opened(subscriptions: bytes, on_line: Callable[[bytes], None]) -> AsyncIterator[None]:
        done = False

        def pass_on(line: bytes) -> None:
            nonlocal done
            line_read = msgspec.json.decode(line, type=Line)
            mine = not done and where(line_read)
            done = done or mine
            for reported in tamper(line_read) if mine else [line_read]:
                on_line(msgspec.json.encode(reported))

        async with client(subscriptions, pass_on):
            yield

    return opened


def is_second_event(line: Line) -> bool:
    return line.text is not None and '"seq":2,' in line.text


@pytest.mark.parametrize("tamper", [corrupted, lost, duplicated, misrouted])
async def test_one_changed_frame_of_a_live_client_is_detected(tamper: Tampering) -> None:
    with pytest.raises(AssertionError, match=r"^socket \d, frame \d+: ours "):
        await assert_transcripts_agree(LEAK, tampering_client(CLIENT, tamper, where=is_second_event))


async def test_changed_close_code_is_detected() -> None:
    def aborted(line: Line) -> list[Line]:
        return [msgspec.structs.replace(line, closed=1_006)]

    transcripts = TranscriptPair(tampering_client(CLIENT, aborted, where=lambda line: line.closed is not None))
    await measure(LEAK.variant, LEAK.workload, observer=transcripts)
    (found,) = differences(transcripts.ours, transcripts.theirs)
    assert found.endswith(": ours closed with 4000, theirs with 1006")


async def test_failed_client_fails_the_measurement() -> None:
    dying = program(sys.executable, "-c", "raise SystemExit(3)")
    with pytest.raises(ChildProcessError, match=r"ended with 3$"):
        await measure(LEAK.variant, LEAK.workload, observer=TranscriptPair(dying))
