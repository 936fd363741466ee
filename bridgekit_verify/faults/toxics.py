"""Toxics: the network faults that a proxy can start and stop, as immutable parameter sets.

The names are those of Toxiproxy (https://github.com/Shopify/toxiproxy#toxics), except `partition`, which is Jepsen's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from random import Random
from typing import ClassVar, Final

__all__ = [
    "BOTH_DIRECTIONS",
    "NETWORK_FAULTS",
    "AddedLatency",
    "Bandwidth",
    "Direction",
    "Down",
    "LimitData",
    "NetworkFault",
    "Partition",
    "ResetPeer",
    "Slicer",
    "SlowReader",
    "Timeout",
    "Toxic",
]


class Direction(Enum):
    """The direction in which bytes pass through the proxy."""

    TO_CLIENT = "to client"
    TO_SERVER = "to server"


BOTH_DIRECTIONS: Final = (Direction.TO_CLIENT, Direction.TO_SERVER)


@dataclass(frozen=True, kw_only=True)
class Toxic:
    """Base class of all toxics. It has no effect. Each subclass overrides the properties that it changes.

    Active toxics combine: delays are summed, and the lowest rate and the shortest piece apply.
    """

    directions: tuple[Direction, ...] = BOTH_DIRECTIONS
    """The directions that the toxic affects."""
    seed: int = 0
    """Seed of the random numbers. Each connection and direction has its own generator.

    The random numbers are reproducible, but not the pieces that they apply to: the kernel decides how many bytes each
    read returns.
    """

    blocks: ClassVar[bool] = False
    """Whether bytes and new connections wait until the toxic stops."""
    drops: ClassVar[bool] = False
    """Whether bytes, and the end of a stream, are dropped."""
    refuses: ClassVar[bool] = False
    """Whether the port refuses connections."""
    cuts_at_start: ClassVar[bool] = False
    cuts_at_stop: ClassVar[bool] = False
    resets: ClassVar[bool] = False
    """Whether a cut connection ends with an RST instead of an orderly shutdown."""

    def delay(self, rng: Random) -> float:
        """Return the delay of the next piece, in seconds."""
        return 0.0

    def rate(self) -> float:
        """Return the read limit in bytes per second, or infinity for no limit."""
        return math.inf

    def piece(self, rng: Random) -> int | None:
        """Return the size of the next piece in bytes, or None if the bytes are not split."""
        return None

    def pause(self) -> float:
        """Return the seconds between two pieces."""
        return 0.0

    def limit(self) -> int | None:
        """Return the number of forwarded bytes after which a connection is cut, or None for no limit."""
        return None


@dataclass(frozen=True)
class AddedLatency(Toxic):
    """Delays every piece by `seconds` seconds, plus or minus up to `jitter` seconds.

    Bytes of one direction stay in order.
    """

    seconds: float
    jitter: float = 0.0

    def delay(self, rng: Random) -> float:
        return max(0.0, self.seconds + rng.uniform(-self.jitter, self.jitter))


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """Limits each connection to `bytes_per_second` bytes per second, by default from the server to the client."""

    bytes_per_second: float
    directions: tuple[Direction, ...] = field(default=(Direction.TO_CLIENT,), kw_only=True)

    def rate(self) -> float:
        return self.bytes_per_second


@dataclass(frozen=True)
class SlowReader(Toxic):
    """Reads at most `bytes_per_second` bytes per second from the server.

    With 0, the TCP window closes, but the connection stays open.
    """

    bytes_per_second: float = 0.0
    directions: tuple[Direction, ...] = field(default=(Direction.TO_CLIENT,), kw_only=True)

    def rate(self) -> float:
        return self.bytes_per_second


@dataclass(frozen=True)
class Timeout(Toxic):
    """Drops bytes without an error. When the toxic stops, the connection is cut, because bytes are missing."""

    drops: ClassVar[bool] = True
    cuts_at_stop: ClassVar[bool] = True


@dataclass(frozen=True)
class Partition(Toxic):
    """Blocks bytes until the toxic stops, like a short network partition.

    New connections hang meanwhile.
    """

    blocks: ClassVar[bool] = True


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """Sends an RST to both ends, immediately or after `after_bytes` bytes from the server, also on new connections."""

    after_bytes: int = 0
    directions: tuple[Direction, ...] = field(default=(Direction.TO_CLIENT,), kw_only=True)
    resets: ClassVar[bool] = True

    def limit(self) -> int:
        return self.after_bytes


@dataclass(frozen=True)
class LimitData(Toxic):
    """Closes each connection after `after_bytes` bytes, possibly in the middle of a frame.

    By default, only bytes from the server count.
    """

    after_bytes: int
    directions: tuple[Direction, ...] = field(default=(Direction.TO_CLIENT,), kw_only=True)

    def limit(self) -> int:
        return self.after_bytes


@dataclass(frozen=True)
class Down(Toxic):
    """Closes open connections and refuses new ones. The port stays reserved, so that the proxy can listen again."""

    refuses: ClassVar[bool] = True
    cuts_at_start: ClassVar[bool] = True


@dataclass(frozen=True)
class Slicer(Toxic):
    """Splits bytes into pieces of `piece_bytes` bytes, plus or minus up to `variation` bytes, sent `seconds` seconds
    apart."""

    piece_bytes: int
    variation: int = 0
    seconds: float = 0.0

    def piece(self, rng: Random) -> int:
        return max(1, self.piece_bytes + rng.randint(-self.variation, self.variation))

    def pause(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class NetworkFault:
    """A toxic with default parameters, and the real-world event that the toxic models."""

    name: str
    default: Toxic
    description: str

    def toxic(self, seed: int = 0) -> Toxic:
        """Return the default toxic with this seed."""
        return replace(self.default, seed=seed)


def _rows() -> Iterator[NetworkFault]:
    yield NetworkFault(
        "latency", AddedLatency(0.1, 0.05), "a long or congested path: packets arrive 50 to 150 ms later"
    )
    yield NetworkFault("bandwidth", Bandwidth(20_000), "a phone with a weak signal: it receives 20 kB per second")
    yield NetworkFault("slow_reader", SlowReader(), "a suspended browser tab: it stays connected and reads nothing")
    yield NetworkFault("timeout", Timeout(), "a firewall drops the connection state: packets are lost without an error")
    yield NetworkFault(
        "partition", Partition(), "the network is interrupted: packets are retransmitted and none is lost"
    )
    yield NetworkFault("reset_peer", ResetPeer(), "a load balancer restarts: both ends get an RST")
    yield NetworkFault("down", Down(), "the machine restarts: connections are closed and new ones are refused")
    yield NetworkFault("slicer", Slicer(7, 5), "a path with tiny packets: frames arrive in pieces of 2 to 12 bytes")
    yield NetworkFault(
        "limit_data", LimitData(2_000), "a proxy with a quota: connections end after 2 kB, possibly in mid-frame"
    )


NETWORK_FAULTS: Final = {fault.name: fault for fault in _rows()}
