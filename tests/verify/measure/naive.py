"""A second checker, as slow and simple as possible: it compares every pair, and shares no code with the first."""

from __future__ import annotations

from collections import Counter

from bridgekit.events import Outcome
from bridgekit_verify.measure.history import Arrival, Expectation, History, Socket

NOT_SENT = {Outcome.SENT, Outcome.RELAYED, Outcome.NO_SUBSCRIBER, Outcome.UNROUTABLE, Outcome.REFUSED}
"""Outcomes that, without a socket, state that no user gets the event. Pending states nothing."""


def judge(history: History) -> dict[str, int]:
    outcomes = Counter(
        outcome(history, event, socket)
        for event in history.expected
        for socket in history.sockets
        if entitled(socket, event)
    )
    kinds = Counter(classification(history, number, arrival) for number, arrival in enumerate(history.arrivals))
    late = [frames for socket in history.sockets for frames in lateness(history, socket)]
    return {
        "expected": outcomes.total(),
        "no_socket": sum(not any(entitled(socket, event) for socket in history.sockets) for event in history.expected),
        "frames": len(history.arrivals),
        **{name: outcomes[name] for name in ("delivered", "lost_signalled", "lost_silent")},
        **{name: kinds[name] for name in ("extra_copies", "wrong_thread", "wrong_user", "unexpected")},
        "reordered": sum(frames > 0 for frames in late),
        "reordering_extent": max(late, default=0),
        "reordered_in_run": sum(numbered_late(history, socket) for socket in history.sockets),
        "false_gaps": sum(gaps_without_loss(history, socket) for socket in history.sockets),
        "false_success": false_successes(history),
        "false_failure": sum(
            not receipt
            and receipt.outcome in NOT_SENT
            and not receipt.kept
            and any(arrival.key == key for arrival in history.arrivals)
            for key, (_, receipt) in history.acknowledged.items()
        ),
        "acknowledged": len(list(history.acknowledged)),
    }


def false_successes(history: History) -> int:
    claimed = [key for key, (_, receipt) in history.acknowledged.items() if receipt]
    for arrival in history.arrivals:
        for event in history.expected:
            if event.key == arrival.key and entitled(arrival.socket, event) and event.key in claimed:
                claimed.remove(event.key)
    return len(claimed)


def entitled(socket: Socket, event: Expectation) -> bool:
    return (socket.thread_id, socket.user_id) == (event.thread_id, event.user_id)


def outcome(history: History, event: Expectation, socket: Socket) -> str:
    if any(arrival.key == event.key and arrival.socket == socket for arrival in history.arrivals):
        return "delivered"
    answer = history.acknowledged.get(event.key)
    seq = answer[1].seq if answer else None
    signalled = seq is not None and any(
        seq in range(gap.first, 1 + (seq if gap.last is None else gap.last))
        for gap in history.gaps.get(socket.number, [])
        if answer is not None and (gap.epoch is None or gap.epoch == answer[1].epoch)
    )
    return "lost_signalled" if signalled else "lost_silent"


def classification(history: History, number: int, arrival: Arrival) -> str | None:
    """Return what a frame is, unless it is the first copy of a delivered event."""
    for event in history.expected:
        if event.key == arrival.key:
            if event.user_id != arrival.socket.user_id:
                return "wrong_user"
            if event.thread_id != arrival.socket.thread_id:
                return "wrong_thread"
            copy = any(
                (before.key, before.socket) == (arrival.key, arrival.socket) for before in history.arrivals[:number]
            )
            return "extra_copies" if copy else None
    return "unexpected"


def lateness(history: History, socket: Socket) -> list[int]:
    """Return the delay in frames of each first copy of a delivered event, from the first frame that overtook it."""
    first = [
        arrival.seq
        for number, arrival in enumerate(history.arrivals)
        if arrival.socket == socket and classification(history, number, arrival) is None
    ]
    return [
        max((index - before for before in range(index) if first[before] > seq), default=0)
        for index, seq in enumerate(first)
    ]


def numbered_late(history: History, socket: Socket) -> int:
    """Count the events with a higher number than an event that their run emitted later."""
    order = list(dict.fromkeys(event.key for event in history.expected))
    lowest = {
        key: min(numbers)
        for key in order
        if (
            numbers := [
                arrival.seq
                for number, arrival in enumerate(history.arrivals)
                if (arrival.socket, arrival.key) == (socket, key)
                and classification(history, number, arrival) in (None, "extra_copies")
            ]
        )
    }
    return sum(
        any(
            other.request == key.request
            and order.index(other) > order.index(key)
            and (lowest[other], order.index(other)) < (lowest[key], order.index(key))
            for other in lowest
        )
        for key in lowest
    )


def gaps_without_loss(history: History, socket: Socket) -> int:
    own = {
        number: arrival
        for number, arrival in enumerate(history.arrivals)
        if arrival.socket == socket and classification(history, number, arrival) in (None, "extra_copies", "unexpected")
    }
    lost = [
        history.acknowledged.get(event.key)
        for event in history.expected
        if entitled(socket, event) and outcome(history, event, socket) != "delivered"
    ]
    if any(answer is None or answer[1].seq is None for answer in lost):
        return 0
    unread = [
        receipt
        for key, (_, receipt) in history.acknowledged.items()
        if receipt.thread_id in (None, socket.thread_id) and all(arrival.key != key for arrival in own.values())
    ]
    signalled = history.gaps.get(socket.number, [])
    untrue = [gap for gap in signalled if gap.last is not None and not any(map(gap.covers, unread))]
    known = {arrival.seq for arrival in own.values()}
    order: list[object] = list(dict.fromkeys(event.key for event in history.expected))
    places = [order.index(arrival.key) if arrival.key in order else -1 for arrival in own.values()]
    seqs = [arrival.seq for arrival in own.values()]
    regular = all(
        seqs[index] == seqs[index - 1] + 1 and places[index] > places[index - 1] for index in range(1, len(seqs))
    )
    if not known or (regular and not lost and not signalled):
        return len(untrue)  # an event that nobody expects and nobody misses leaves no visible gap
    known |= {receipt.seq for receipt in unread if receipt.seq is not None}
    missing = [
        number
        for number in range(min(known), max(known))
        if number not in known
        and not any(gap.first <= number <= (number if gap.last is None else gap.last) for gap in signalled)
    ]
    # One skipped range between two known numbers counts once, also if a part of it is signalled.
    ranges = {max(each for each in known if each < number) for number in missing}
    return len(ranges) + len(untrue)
