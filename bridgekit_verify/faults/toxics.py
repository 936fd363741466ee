"""What a network can do to a connection, as values that a proxy starts and stops.

The names are Toxiproxy's (https://github.com/Shopify/toxiproxy#toxics); `partition` is Jepsen's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from random import Random
from typing import ClassVar, Final

__all__ = [
    "BOTH_WAYS",
    "FAULTS",
    "Bandwidth",
    "Down",
    "Fault",
    "Latency",
    "LimitData",
    "Partition",
    "ResetPeer",
    "Slicer",
    "SlowReader",
    "Timeout",
    "Toxic",
    "Way",
]


class Way(Enum):
    """A direction through the proxy."""

    TO_CLIENT = "to client"
    TO_SERVER = "to server"


BOTH_WAYS: Final = (Way.TO_CLIENT, Way.TO_SERVER)


@dataclass(frozen=True, kw_only=True)
class Toxic:
    """A fault's parameters. This one does nothing: each kind answers one question of the proxy otherwise.

    Those that run together add up: delays are summed, the lowest rate and the shortest piece win.
    """

    ways: tuple[Way, ...] = BOTH_WAYS
    """The directions that it acts on."""
    seed: int = 0
    """What chance is drawn from, for each connection and direction anew, where chance plays a part.

    The draws are the same each time; which bytes meet in one read, and so share a draw, is the kernel's affair.
    """

    holds: ClassVar[bool] = False
    """Bytes wait, and so do those who want to connect."""
    swallows: ClassVar[bool] = False
    """Bytes vanish, and so does the end of a stream."""
    refuses: ClassVar[bool] = False
    """The port refuses connections."""
    cuts_at_start: ClassVar[bool] = False
    cuts_at_stop: ClassVar[bool] = False
    resets: ClassVar[bool] = False
    """What it cuts ends with an RST, and not in good order."""

    def delay(self, chance: Random) -> float:
        """Seconds by which the next piece is late."""
        return 0.0

    def rate(self) -> float:
        """Bytes that may be read a second."""
        return math.inf

    def piece(self, chance: Random) -> int | None:
        """Bytes of the next piece to be sent by itself; None leaves it whole."""
        return None

    def pause(self) -> float:
        """Seconds between two pieces."""
        return 0.0

    def limit(self) -> int | None:
        """Bytes that pass from now on, or from a connection's beginning, before it is cut."""
        return None


@dataclass(frozen=True)
class Latency(Toxic):
    """Every piece is late by `seconds`, plus or minus up to `jitter`; none overtakes another of its direction."""

    seconds: float
    jitter: float = 0.0

    def delay(self, chance: Random) -> float:
        return max(0.0, self.seconds + chance.uniform(-self.jitter, self.jitter))


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """Each connection passes so many bytes a second, by default from the server to the client."""

    bytes_per_second: float
    ways: tuple[Way, ...] = field(default=(Way.TO_CLIENT,), kw_only=True)

    def rate(self) -> float:
        return self.bytes_per_second


@dataclass(frozen=True)
class SlowReader(Toxic):
    """The server's bytes are read at this rate, by default not at all: its window closes, and it stays connected."""

    bytes_per_second: float = 0.0
    ways: tuple[Way, ...] = field(default=(Way.TO_CLIENT,), kw_only=True)

    def rate(self) -> float:
        return self.bytes_per_second


@dataclass(frozen=True)
class Timeout(Toxic):
    """Bytes vanish without an error. A stream with a hole cannot go on, so it is cut when the toxic stops."""

    swallows: ClassVar[bool] = True
    cuts_at_stop: ClassVar[bool] = True


@dataclass(frozen=True)
class Partition(Toxic):
    """Bytes wait, as TCP lets them over a short partition, and flow when it heals. New connections hang meanwhile."""

    holds: ClassVar[bool] = True


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """Both ends get an RST, at once or after so many bytes from the server; so do clients that connect meanwhile."""

    after_bytes: int = 0
    ways: tuple[Way, ...] = field(default=(Way.TO_CLIENT,), kw_only=True)
    resets: ClassVar[bool] = True

    def limit(self) -> int:
        return self.after_bytes


@dataclass(frozen=True)
class LimitData(Toxic):
    """Every connection ends after so many bytes, by default from the server, in the middle of a frame or not."""

    after_bytes: int
    ways: tuple[Way, ...] = field(default=(Way.TO_CLIENT,), kw_only=True)

    def limit(self) -> int:
        return self.after_bytes


@dataclass(frozen=True)
class Down(Toxic):
    """Open connections are closed and new ones refused; the port stays taken, so that it can come back."""

    refuses: ClassVar[bool] = True
    cuts_at_start: ClassVar[bool] = True


@dataclass(frozen=True)
class Slicer(Toxic):
    """Bytes are sent in pieces of about `piece_bytes`, more or less by up to `variation`, `seconds` apart."""

    piece_bytes: int
    variation: int = 0
    seconds: float = 0.0

    def piece(self, chance: Random) -> int:
        return max(1, self.piece_bytes + chance.randint(-self.variation, self.variation))

    def pause(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Fault:
    """A row of the table: a toxic with usual parameters, and what it is in the world."""

    name: str
    usual: Toxic
    says: str

    def toxic(self, seed: int = 0) -> Toxic:
        """The toxic with this seed."""
        return replace(self.usual, seed=seed)


def _rows() -> Iterator[Fault]:
    yield Fault("latency", Latency(0.1, 0.05), "a long way or a crowded one: each packet is 50 to 150 ms later")
    yield Fault("bandwidth", Bandwidth(20_000), "a phone at the edge of its cell: 20 kB a second get through to it")
    yield Fault("slow_reader", SlowReader(), "a browser tab that is put to sleep: it stays connected and reads nothing")
    yield Fault("timeout", Timeout(), "a firewall forgets the connection: packets vanish and neither end gets an error")
    yield Fault("partition", Partition(), "a cable is out for a while: packets wait, are sent again, and none is lost")
    yield Fault("reset_peer", ResetPeer(), "a load balancer is restarted: both ends lose the connection with an RST")
    yield Fault("down", Down(), "the machine is restarted: connections are closed and new ones refused")
    yield Fault("slicer", Slicer(7, 5), "a path with tiny packets: frames arrive in crumbs of 2 to 12 bytes")
    yield Fault("limit_data", LimitData(2_000), "a proxy with a quota: connections end after 2 kB, in mid-frame or not")


FAULTS: Final = {fault.name: fault for fault in _rows()}
