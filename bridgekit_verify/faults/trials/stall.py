"""Measure how a socket that stops reading affects the other sockets of its thread and the emitting agent."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import anyio
import pandas as pd
from anyio.abc import TaskStatus
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.errors import unwrap_single_error
from bridgekit.events import AgentEvent, EventType
from bridgekit.ids import RunId, ThreadId
from bridgekit.serve.in_process import serving
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.outbox import OutboxLimits
from bridgekit_verify.faults.proxy import proxy
from bridgekit_verify.measure.plots import BLUE, LOST, new_figure

__all__ = ["BRIDGEKIT", "SERVERS", "LoopTimeClock", "Stall", "StallStudy", "study_stall"]

STALL_SECONDS: Final = 120.0
STILL_SECONDS: Final = 0.02
"""LoopTimeClock stops when the event loop has not run for this time."""
SETTLE_SECONDS: Final = 60.0
"""How long the neighbouring sockets may take to read the remaining events after the stall."""
PADDING_BYTES: Final = 8_192
_NUMBER = re.compile(r'"number": ?(\d+)')
SEND_BUFFER_BYTES: Final = 16_384
"""Send buffer of a socket: small, so that a client that stops reading causes backpressure immediately."""
THREAD: Final = ThreadId("thread_1")
USER: Final = "user_1"
OUTBOX_EVENTS: Final = 16

Emit = Callable[[int, str], Awaitable[None]]
"""Sends one event to every subscriber: a JSON text with `"number": …` and padding."""


@dataclass(frozen=True)
class RunningServer:
    """A running server: the URL that clients subscribe at, and the function that emits an event."""

    url: str
    emit: Emit


@dataclass(frozen=True)
class ServerKind:
    """An implementation of a server that sends every event to every subscriber."""

    name: str
    description: str
    """The code with which the server sends an event."""
    serve: Callable[[], AbstractAsyncContextManager[RunningServer]]


def _event(number: int, padding: str) -> str:
    return f'{{"number": {number}, "padding": "{padding}"}}'


@asynccontextmanager
async def _serve_starlette() -> AsyncIterator[RunningServer]:
    sockets: list[WebSocket] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        sockets.append(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            sockets.remove(websocket)

    async def emit(number: int, padding: str) -> None:
        for each in sockets:
            await each.send_text(_event(number, padding))

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    async with serving(app, send_buffer_bytes=SEND_BUFFER_BYTES) as url:
        yield RunningServer(url, emit)


@asynccontextmanager
async def _serve_websockets() -> AsyncIterator[RunningServer]:
    connections: list[ServerConnection] = []

    async def handler(connection: ServerConnection) -> None:
        connections.append(connection)
        await connection.wait_closed()
        connections.remove(connection)

    async def emit(number: int, padding: str) -> None:
        for each in connections:
            with suppress(ConnectionClosed):
                await each.send(_event(number, padding))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        async with serve(handler, sock=listener, compression=None, close_timeout=0.1):
            yield RunningServer(f"ws://127.0.0.1:{listener.getsockname()[1]}", emit)


@asynccontextmanager
async def _serve_bridgekit() -> AsyncIterator[RunningServer]:
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer, outbox=OutboxLimits(events=OUTBOX_EVENTS)))

    async def emit(number: int, padding: str) -> None:
        payload = {"number": number, "padding": padding}
        await app.state.agent_websocket_bridge.notify(
            AgentEvent(
                type=EventType.TOOL_COMPLETED,
                run_id=RunId("run_1"),
                agent_name="researcher",
                payload=payload,
                thread_id=THREAD,
            )
        )

    async with serving(app, send_buffer_bytes=SEND_BUFFER_BYTES) as url:
        await app.state.bridgekit.open_thread(THREAD, USER)
        yield RunningServer(f"{url}/ws?thread_id={THREAD}&user_id={USER}", emit)


BRIDGEKIT: Final = ServerKind("bridgekit", "await bridge.notify(event)", _serve_bridgekit)
SERVERS: Final = (
    ServerKind("Starlette, a loop of sends", "for socket in sockets: await socket.send_text(event)", _serve_starlette),
    ServerKind(
        "websockets, a loop of sends",
        "for connection in connections: await connection.send(event)",
        _serve_websockets,
    ),
    BRIDGEKIT,
)
"""The measured servers: two typical servers that await one socket after another, and the bridge."""


@dataclass(frozen=True)
class Stall:
    """The measurements of one server. All times are seconds after the first event was due."""

    server: ServerKind
    neighbours: int
    events: int
    due: Sequence[float]
    """The time at which each event was due."""
    reads: Sequence[tuple[int, float]]
    """Each event that a neighbouring socket read: the event's number and the time of the read."""
    waits: Sequence[float]
    """How long the agent waited for each emission, in seconds."""
    window: tuple[float, float]
    """Start and end of the stall."""

    @property
    def latencies(self) -> list[tuple[float, float]]:
        """For each read: when the event was due, and its latency in seconds."""
        return [(self.due[number], moment - self.due[number]) for number, moment in self.reads]

    @property
    def during(self) -> list[float]:
        """Latencies of the events that were due during the stall, in seconds, shortest first."""
        return sorted(late for due, late in self.latencies if self.window[0] <= due <= self.window[1])

    @property
    def before(self) -> list[float]:
        """Latencies of the events that were due before the stall, in seconds, shortest first."""
        return sorted(late for due, late in self.latencies if due < self.window[0])

    @property
    def median_during(self) -> float:
        """Median latency of the events that were due during the stall, in seconds, or 0 if there are none."""
        return _quantile(self.during, 0.5)

    @property
    def median_before(self) -> float:
        """Median latency of the events that were due before the stall, in seconds, or 0 if there are none."""
        return _quantile(self.before, 0.5)

    @property
    def stalled_seconds(self) -> float:
        """Duration of the stall, in seconds."""
        return self.window[1] - self.window[0]

    @property
    def longest_wait(self) -> float:
        """The longest time that the agent waited for an emission, in seconds, or 0 if there are no emissions."""
        return max(self.waits, default=0.0)


class LoopTimeClock:
    """A clock that stops while the event loop does not get a CPU, so that it measures only delays that sockets cause.

    A server that awaits a socket does not block the loop, so the clock includes the server's waiting time. A background
    task must execute `run`.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen = now()
        self._lost = 0.0

    def __call__(self) -> float:
        return min(self._now(), self._seen + STILL_SECONDS) - self._lost

    async def run(self) -> None:
        while True:
            self.poll()
            await anyio.sleep(STILL_SECONDS / 4)

    def poll(self) -> None:
        """Count the time since the last poll, up to STILL_SECONDS."""
        now = self._now()
        self._lost += max(now - self._seen - STILL_SECONDS, 0.0)
        self._seen = now


def _milliseconds(seconds: float) -> str:
    return f"{1_000 * seconds:,.0f} ms" if seconds >= 0.01 else f"{1_000 * seconds:.1f} ms"


def _quantile(sorted_values: Sequence[float], share: float) -> float:
    return sorted_values[min(int(share * len(sorted_values)), len(sorted_values) - 1)] if sorted_values else 0.0


@dataclass(frozen=True)
class StallStudy:
    """The results of the same stall with each server."""

    stalls: Sequence[Stall]

    def of(self, name: str) -> Stall:
        return next(stall for stall in self.stalls if stall.server.name == name)

    def table(self) -> pd.DataFrame:
        """Return one row for each server."""
        return pd.DataFrame(
            {
                "server": stall.server.name,
                "code that sends": stall.server.description,
                "other sockets read": f"{len(stall.reads):,} of {stall.events * stall.neighbours:,}",
                "median before, ms": round(1_000 * stall.median_before, 1),
                "median during, ms": round(1_000 * stall.median_during, 1),
                "longest during, ms": round(1_000 * _quantile(stall.during, 1.0), 1),
                "longest emission, ms": round(1_000 * stall.longest_wait, 1),
            }
            for stall in self.stalls
        )

    def title(self) -> str:
        """State how long the slowest emission took with bridgekit and with the servers that wait for each socket."""
        ours = self.of(BRIDGEKIT.name)
        others = max((stall.longest_wait for stall in self.stalls if stall is not ours), default=0.0)
        return (
            "While one socket reads nothing, an emission takes up to\n"
            f"{_milliseconds(ours.longest_wait)} in bridgekit, and {_milliseconds(others)} in servers that wait for"
            " this socket"
        )

    def figure(self) -> Figure:
        """Draw the neighbours' latencies over time, one panel for each server."""
        with new_figure(self.title(), 6.4, 1.2 + 1.7 * len(self.stalls)) as figure:
            axes = figure.subplots(len(self.stalls), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
            for axis, stall in zip(axes, self.stalls, strict=True):
                axis.axvspan(*stall.window, color=LOST, linewidth=0, label="one socket reads nothing")
                axis.scatter(
                    [due for due, _ in stall.latencies],
                    [1_000 * late for _, late in stall.latencies],
                    s=7,
                    color=BLUE,
                    label="event read by another socket",
                )
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
                axis.set_ylim(0.1, 3_000)
                axis.set_title(
                    f"{stall.server.name}: longest emission {_milliseconds(stall.longest_wait)}", fontsize=10.5
                )
            axes[-1].set_xlabel("time at which the event was due, s after the first event")
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
            figure.supylabel("delay at the other sockets, ms", fontsize=10)
            return figure

    def alt_text(self) -> str:
        """Return a text alternative of the figure.

        The text states, for each server, the median latencies before and during the stall, and the longest emission.
        """
        return "; ".join(
            f"server {stall.server.name!r}: the median delay at the other sockets is {1_000 * stall.median_before:.1f}"
            f" ms before and {1_000 * stall.median_during:.1f} ms while one socket reads nothing,"
            f" and the longest emission takes {_milliseconds(stall.longest_wait)}"
            for stall in self.stalls
        )


async def study_stall(
    *,
    neighbours: int = 3,
    events: int = 120,
    pace_seconds: float = 0.01,
    start: float = 0.3,
    duration: float = 0.5,
    servers: Iterable[ServerKind] = SERVERS,
) -> StallStudy:
    """Measure each server with `neighbours` sockets that read and one that stalls. An agent emits at a fixed rate.

    The stall starts `start` seconds after the first event and lasts `duration` seconds. Raises TimeoutError if
    the study takes too long.
    """
    with unwrap_single_error(), anyio.fail_after(STALL_SECONDS + 10 * events * pace_seconds):
        return StallStudy(
            [await _stall(server, neighbours, events, pace_seconds, start, duration) for server in servers]
        )


async def _stall(
    server: ServerKind, neighbours: int, events: int, pace_seconds: float, start: float, duration: float
) -> Stall:
    reads: list[tuple[int, float]] = []
    waits: list[float] = []
    padding, clock = "x" * PADDING_BYTES, LoopTimeClock()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(server.serve())
        port = urlsplit(running.url).port or 0
        slow_path = await stack.enter_async_context(proxy("127.0.0.1", port, buffer_bytes=PADDING_BYTES))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(clock.run)
        # The stalling socket connects first, so that a loop of sends reaches it before its neighbours.
        await tasks.start(_read, running.url.replace(f":{port}", f":{slow_path.port}"), [], clock)
        for _ in range(neighbours):
            await tasks.start(_read, running.url, reads, clock)
        origin = clock()
        due = [number * pace_seconds for number in range(events)]

        async def emit() -> None:
            for number, moment in enumerate(due):
                await _sleep_until(clock, origin + moment)
                asked = clock()
                await running.emit(number, padding)
                waits.append(clock() - asked)

        async with anyio.create_task_group() as emitting:
            emitting.start_soon(emit)
            await _sleep_until(clock, origin + start)
            first = clock() - origin
            with slow_path.slow_reader():
                await _sleep_until(clock, origin + first + duration)
            last = clock() - origin
        with anyio.move_on_after(SETTLE_SECONDS):
            while len(reads) < neighbours * events:  # noqa: ASYNC110  # polled with a timeout: reads set no event
                await anyio.sleep(pace_seconds)
        tasks.cancel_scope.cancel()
    since = [(number, moment - origin) for number, moment in reads]
    return Stall(server, neighbours, events, due, since, waits, (first, last))


async def _sleep_until(clock: LoopTimeClock, moment: float) -> None:
    while (left := moment - clock()) > 0:  # noqa: ASYNC110  # polled: the clock sets no event
        await anyio.sleep(left)


async def _read(
    url: str, reads: list[tuple[int, float]], clock: LoopTimeClock, *, task_status: TaskStatus[None]
) -> None:
    """Read until cancelled, or until the server closes the connection."""
    async with connect(url, compression=None, proxy=None, max_queue=None, close_timeout=0.1) as client:
        task_status.started()
        try:
            while True:
                if found := _NUMBER.search(str(await client.recv())):
                    reads.append((int(found[1]), clock()))
        except ConnectionClosed:
            return
