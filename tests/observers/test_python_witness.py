"""The same run as websocket-client sees it, which shares no code with our client. On asyncio, as uvicorn is."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from bridgekit_verify.measure.experiment import measure
from tests.observers import python_client
from tests.observers.attendance import Attendance, Opened, program
from tests.observers.scenes import SCENES, Scene, assert_accounts_agree, every_scene
from tests.observers.transcripts import Line, differences

pytestmark = pytest.mark.slow

WITNESS = program(sys.executable, str(Path(python_client.__file__)))
LEAK = SCENES[1]

Tampering = Callable[[Line], list[Line]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@every_scene
async def test_websocket_client_reads_what_our_client_reads(scene: Scene) -> None:
    await assert_accounts_agree(scene, WITNESS)


def altered(line: Line) -> list[Line]:
    """Another byte, in a frame that still decodes to an event."""
    return [msgspec.structs.replace(line, text=(line.text or "") + " ")]


def lost(line: Line) -> list[Line]:
    return []


def doubled(line: Line) -> list[Line]:
    return [line, line]


def astray(line: Line) -> list[Line]:
    return [msgspec.structs.replace(line, socket=line.socket + 1)]


def tampered(witness: Opened, tamper: Tampering, *, where: Callable[[Line], bool]) -> Opened:
    """The witness, but for the first of its lines that is the one looked for."""

    @asynccontextmanager
    async def opened(seats: bytes, note: Callable[[bytes], None]) -> AsyncIterator[None]:
        done = False

        def pass_on(line: bytes) -> None:
            nonlocal done
            said = msgspec.json.decode(line, type=Line)
            mine = not done and where(said)
            done = done or mine
            for told in tamper(said) if mine else [said]:
                note(msgspec.json.encode(told))

        async with witness(seats, pass_on):
            yield

    return opened


def is_second_event(line: Line) -> bool:
    return line.text is not None and '"seq":2,' in line.text


@pytest.mark.parametrize("tamper", [altered, lost, doubled, astray])
async def test_one_tampered_frame_of_a_live_witness_is_noticed(tamper: Tampering) -> None:
    with pytest.raises(AssertionError, match=r"^socket \d, frame \d+: ours "):
        await assert_accounts_agree(LEAK, tampered(WITNESS, tamper, where=is_second_event))


async def test_another_close_code_is_noticed() -> None:
    def aborted(line: Line) -> list[Line]:
        return [msgspec.structs.replace(line, closed=1_006)]

    attendance = Attendance(tampered(WITNESS, aborted, where=lambda line: line.closed is not None))
    await measure(LEAK.variant, LEAK.workload, observer=attendance)
    (found,) = differences(attendance.ours, attendance.theirs)
    assert found.endswith(": ours closed with 4000, theirs with 1006")


async def test_witness_that_dies_fails_the_measurement() -> None:
    dying = program(sys.executable, "-c", "raise SystemExit(3)")
    with pytest.raises(ChildProcessError, match=r"ended with 3$"):
        await measure(LEAK.variant, LEAK.workload, observer=Attendance(dying))
