"""The client process of a measurement: opens the users' sockets, reads the events of a wave of runs, and judges them.

The suite's checker judges delivery. Lateness is computed from the events' due times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final, assert_never

from bridgekit.chain.models_tools_and_owners import MemoryThreadStore
from bridgekit.cursors_and_gaps import Gap, Subscribed, decode_any
from bridgekit.transport.authorization import PROTOCOL, TICKET_PROTOCOL
from bridgekit.transport.tickets import Tickets
from bridgekit.transport.used_tickets import MemoryUsedTickets
from bridgekit_verify.capacity.messages import ClientReport, Connect, ConnectedSockets, ReadWave
from bridgekit_verify.capacity.schedule import LoadWave, owner
from bridgekit_verify.harness.child_side import Done, Ready, send
from bridgekit_verify.harness.load_client import Clear, ClientSocket, LoadClient
from bridgekit_verify.harness.websocket_protocol import WebSocketDialect
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.experiment import arrival_of
from bridgekit_verify.measure.history import EventKey, ExpectedEvents, History, SignalledGap, Socket

__all__ = ["judge_step", "quantile"]

FASTEST_SHARE: Final = 0.25


def judge_step(
    wave: LoadWave,
    history: History,
    *,
    within_seconds: float,
    expected: ExpectedEvents | None = None,
    shares: tuple[float, float] = (0.0, 0.0),
    closed: int = 0,
) -> ClientReport:
    """Check the history of a wave and compute the lateness of its events. Raises LedgerImbalance.

    `expected` is computed from the wave's parameters. The history has no acknowledgements, so a loss is counted but not
    attributed to a link.
    """
    verdict = check(history, expected)
    late, emitted = _lateness(wave, history)
    ordered, emitted = sorted(late.values()), sorted(emitted)
    first, last, apart = _drift(sorted((wave.due(key), seconds) for key, seconds in late.items()))
    return ClientReport(
        expected=verdict.expected,
        delivered=verdict.delivered,
        within=sum(seconds <= within_seconds for seconds in ordered),
        lost=verdict.lost,
        signalled=sum((gap.last or gap.first) - gap.first + 1 for gaps in history.gaps.values() for gap in gaps),
        misrouted=verdict.misrouted,
        extra_copies=verdict.extra_copies,
        unexpected=verdict.unexpected,
        reordered=verdict.reordered,
        closed=closed,
        late_p50=quantile(ordered, 0.5),
        late_p99=quantile(ordered, 0.99),
        late_max=quantile(ordered, 1.0),
        late_mean=sum(ordered) / len(ordered) if ordered else 0.0,
        late_first=first,
        late_last=last,
        apart_seconds=apart,
        emitted_p50=quantile(emitted, 0.5),
        emitted_p99=quantile(emitted, 0.99),
        share=shares[0],
        run_queue_wait=shares[1],
    )


def _lateness(wave: LoadWave, history: History) -> tuple[dict[EventKey, float], list[float]]:
    """Return how late each event was first read, and how late each event was emitted, in seconds after its due time."""
    read, emitted = dict[EventKey, float](), list[float]()
    for arrival in history.arrivals:
        if arrival.key is not None and arrival.key not in read:
            due = wave.due(arrival.key)
            read[arrival.key] = arrival.read_at - due
            emitted.append(arrival.emitted_at - due)
    return read, emitted


def _drift(by_due: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the lower quartile of lateness in the first and last third of events, and the time between the thirds.

    The lower quartile is compared because a pause makes only some events late, while a process that falls behind makes
    all events late.
    """
    size = max(len(by_due) // 3, 1)
    first, last = by_due[:size], by_due[-size:]
    if not first:
        return 0.0, 0.0, 0.0
    apart = last[len(last) // 2][0] - first[len(first) // 2][0]
    return _fastest(first), _fastest(last), apart


def _fastest(third: Sequence[tuple[float, float]]) -> float:
    return quantile(sorted(seconds for _, seconds in third), FASTEST_SHARE)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of sorted values, without interpolation, or 0 if there are no values."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class UserSocket(ClientSocket):
    """The socket of a thread's owner, subscribed with a ticket."""

    def __init__(self, number: int, port: int, tickets: Tickets) -> None:
        owned = owner(number)
        self.socket = Socket(number, owned.thread_id, owned.user_id)
        ticket = tickets.issue(owned.user_id, owned.thread_id)
        self.websocket = WebSocketDialect(f"/ws?thread_id={owned.thread_id}", PROTOCOL, TICKET_PROTOCOL + ticket)
        super().__init__(port, self.websocket)

    def add_to(self, history: History) -> None:
        """Decode the frames that this socket has read and add them to the history."""
        subscribed = decode_any(self.websocket.confirmation)
        assert isinstance(subscribed, Subscribed)
        gaps: list[SignalledGap] = []
        history.gaps[self.socket.number] = gaps
        to_wall_clock = time.time() - time.monotonic()
        history.sockets.append(self.socket)
        for frame, read_ns in zip(self.websocket.events, self.read_ns, strict=True):
            item = decode_any(frame)
            if isinstance(item, Gap):
                gaps.append(SignalledGap(item.first, item.last, item.epoch))
            elif not isinstance(item, Subscribed):
                read_at = read_ns / 1e9 + to_wall_clock
                history.arrivals.append(arrival_of(self.socket, item, read_at=read_at, epoch=subscribed.epoch))


def _open(request: Connect) -> Iterator[UserSocket]:
    tickets = Tickets(MemoryThreadStore(), MemoryUsedTickets(generation=""), keys=(request.key,))
    for number in range(request.first, request.last):
        yield UserSocket(number, request.port, tickets)


def _read(client: LoadClient[UserSocket], request: ReadWave) -> ClientReport:
    wave, sockets = request.wave, client.sockets
    ours = {each.socket.number for each in sockets}
    expected = sum(wave.thread_of(run) in ours for run in range(len(wave.starts))) * wave.plan.events
    report = client.read(expected, until=wave.ends_at)
    history = History(expected=wave.expectations())
    for each in sockets:
        each.add_to(history)
    return judge_step(
        wave,
        history,
        within_seconds=request.within_seconds,
        expected=ExpectedEvents(at_sockets=expected, without_socket=wave.events - expected),
        shares=(report.cpu_share, report.run_queue_wait),
        closed=sum(each.disconnected or each.dialect.closed for each in sockets),
    )


def main() -> None:
    """Handle requests until standard input closes."""
    client = LoadClient[UserSocket]()
    send(Ready())
    for request in client.requests(Connect | Clear | ReadWave):
        match request:
            case Connect():
                client.connect(_open(request))
                send(ConnectedSockets(len(client.sockets)))
            case Clear():
                client.clear()
                send(Done())
            case ReadWave():
                send(_read(client, request))
            case _:
                assert_never(request)


if __name__ == "__main__":
    main()
