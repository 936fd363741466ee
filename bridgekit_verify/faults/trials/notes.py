"""What the workers say of one experiment, as it comes, and the history that it makes with what the users read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from bridgekit_verify.faults.trials.numbering import numbered
from bridgekit_verify.faults.trials.readers import Reader
from bridgekit_verify.faults.trials.worker import Answered, Attempted, Ended, Said
from bridgekit_verify.measure.families import Owned
from bridgekit_verify.measure.history import Expectation, History, Key

__all__ = ["Notes"]


@dataclass
class Notes:
    """What the workers say of this experiment, as it comes."""

    history: History = field(default_factory=History)
    attempted: dict[Key, Expectation] = field(default_factory=dict)
    answers: dict[Key, Answered] = field(default_factory=dict)
    asked_at: dict[Key, float] = field(default_factory=dict)
    owners: dict[str, Owned] = field(default_factory=dict)
    said: Counter[str] = field(default_factory=Counter)
    """How many events of each run its agent asked for."""
    ended: dict[str, str] = field(default_factory=dict)
    """Runs that are over, and the error if there was one."""
    _news: anyio.Event = field(default_factory=anyio.Event)

    async def until_over(self, requests: Sequence[str]) -> None:
        """Wait until these runs are over, well or badly."""
        while not set(requests) <= set(self.ended):
            await self._news.wait()

    async def until_said(self, wanted: Mapping[str, int]) -> None:
        """Wait until agents have asked for so many events of each run, or it is over."""
        while any(self.said[request] < count for request, count in wanted.items() if request not in self.ended):
            await self._news.wait()

    def hear(self, said: Said) -> None:
        if isinstance(said, Attempted):
            owner = self.owners[said.key.request]
            self.attempted[said.key] = Expectation(said.key, owner.thread_id, owner.user_id)
            self.asked_at[said.key] = said.at
            self.said[said.key.request] += 1
        elif isinstance(said, Answered):
            self.answers[said.key] = said
        elif isinstance(said, Ended):
            self.ended[said.request] = said.error
        self._news.set()
        self._news = anyio.Event()

    def closed(self, readers: Sequence[Reader]) -> tuple[History, int]:
        """The history, complete; and how many events were never answered and never came.

        An event that nobody answered because its worker was killed may have been delivered or not, and both are right:
        it is expected if it arrived. (Jepsen calls such an operation indeterminate.)
        """
        read = {arrival.key for reader in readers for arrival in reader.arrivals}
        expected = [each for key, each in self.attempted.items() if key in self.answers or key in read]
        history = self.history
        history.expected += expected
        for reader in readers:
            asked = [key for key, each in self.attempted.items() if each.thread_id == reader.socket.thread_id]
            receipts = {key: self.answers[key].receipt for key in asked if key in self.answers}
            receipts = numbered(asked, receipts, reader.arrivals, reader.gaps)
            history.acknowledged |= {key: (self.answers[key].run_id, receipts[key]) for key in receipts}
        history.sockets += [reader.socket for reader in readers]
        history.arrivals += sorted(
            (arrival for reader in readers for arrival in reader.arrivals), key=lambda arrival: arrival.read_at
        )
        history.gaps |= {reader.socket.number: reader.gaps for reader in readers}
        return history, len(self.attempted) - len(expected)
