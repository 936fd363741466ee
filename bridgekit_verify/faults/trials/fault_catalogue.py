"""The faults of the experiments by name: the target of each fault, and how it is applied and repaired."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import pandas as pd

from bridgekit.errors import UnknownName
from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.faults.proxy import Proxy
from bridgekit_verify.faults.toxics import NETWORK_FAULTS
from bridgekit_verify.faults.trials.deployment import DeliveryMode, Deployment

__all__ = ["FAULTS", "Fault", "FaultContext", "FaultTarget", "fault_table", "faults_named"]


class FaultTarget(enum.StrEnum):
    """The part of a deployment that a fault targets."""

    NOTHING = "nothing"
    NETWORK = "the network path to the user"
    SOCKETS = "the worker with the sockets"
    AGENTS = "the worker with the agents"
    BROKER = "the broker"


@dataclass(frozen=True)
class FaultContext:
    """The targets of a fault: a deployment, and the proxy between it and the users of this experiment."""

    deployment: Deployment
    users: Proxy
    seed: int
    run_agents_for: Callable[[float], Awaitable[None]]
    """Waits for the given seconds, and then until the agents have emitted the events that were due in this time."""


@dataclass(frozen=True)
class Fault:
    """One fault: its name, target and description, and the function that applies it."""

    name: str
    target: FaultTarget
    description: str
    """The real-world event that the fault models."""
    apply: Callable[[FaultContext, float], Awaitable[None]]
    """Applies the fault for this many seconds, then repairs it."""
    padding_bytes: int = 0
    """How many bytes are added to each tool result, for a fault that affects only large events."""

    overflows: bool = False
    """Whether the fault overflows a socket's buffers, so that an unknown number of queued events is lost too."""
    drops: bool = False
    """Whether bytes that are sent during the fault are lost although the socket appears open."""

    def applies_to(self, delivery: DeliveryMode) -> bool:
        """Return whether this delivery mode has the part that the fault targets."""
        return delivery.separate_agents or self.target not in (FaultTarget.AGENTS, FaultTarget.BROKER)

    @property
    def cuts_broker(self) -> bool:
        """Whether the fault acts on the connections between workers and broker."""
        return self.apply in (_partition_broker, _cut_broker)

    @property
    def exclusive(self) -> bool:
        """Whether the fault targets a worker or the broker, so that it would affect concurrent experiments."""
        return self.target not in (FaultTarget.NOTHING, FaultTarget.NETWORK)


async def _nothing(context: FaultContext, seconds: float) -> None:
    await anyio.sleep(seconds)


def _toxic(name: str) -> Callable[[FaultContext, float], Awaitable[None]]:
    async def apply(context: FaultContext, seconds: float) -> None:
        with context.users.start(NETWORK_FAULTS[name].toxic(context.seed)):
            await context.run_agents_for(seconds)

    return apply


async def _kill_sockets(context: FaultContext, seconds: float) -> None:
    await context.deployment.sockets.kill()
    await anyio.sleep(seconds)
    await context.deployment.sockets.restart()


async def _kill_sockets_while_offline(context: FaultContext, seconds: float) -> None:
    """Disconnect the users, and kill the worker with their sockets before they reconnect. The agents continue."""
    with context.users.down():
        await context.run_agents_for(seconds / 2)
        await context.deployment.sockets.kill()
        await anyio.sleep(seconds / 2)
        await context.deployment.sockets.restart()


async def _kill_agents(context: FaultContext, seconds: float) -> None:
    await context.deployment.agents.kill()
    await anyio.sleep(seconds)
    await context.deployment.agents.restart()


async def _pause_sockets(context: FaultContext, seconds: float) -> None:
    await context.deployment.sockets.pause()
    await anyio.sleep(seconds)
    context.deployment.sockets.resume()


async def _restart_sockets(context: FaultContext, seconds: float) -> None:
    """Restart the worker as a rolling deployment does: shut it down gracefully, and start it again later."""
    await context.deployment.sockets.stop()
    await anyio.sleep(seconds)
    await context.deployment.sockets.restart()


async def _kill_broker(context: FaultContext, seconds: float) -> None:
    if (broker := context.deployment.broker) is not None:
        await broker.kill()
        await anyio.sleep(seconds)
        await broker.restart()


async def _pause_broker(context: FaultContext, seconds: float) -> None:
    if (broker := context.deployment.broker) is not None:
        broker.stop()
        await anyio.sleep(seconds)
        broker.resume()


async def _partition_broker(context: FaultContext, seconds: float) -> None:
    if (between := context.deployment.to_broker) is not None:
        with between.partition():
            await anyio.sleep(seconds)


async def _cut_broker(context: FaultContext, seconds: float) -> None:
    if (between := context.deployment.to_broker) is not None:
        with between.reset_peer():
            await anyio.sleep(seconds)


async def _cut_subscriptions(context: FaultContext, seconds: float) -> None:
    """Cut each worker's pub/sub connection to the broker repeatedly, and no other connection."""
    if (broker := context.deployment.broker) is not None:
        until = anyio.current_time() + seconds
        while anyio.current_time() < until:
            await broker.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await anyio.sleep(seconds / 4)


HEAVY_BYTES: Final = 131_072

_NETWORK: Final = ("latency", "bandwidth", "slow_reader", "timeout", "partition", "reset_peer", "down")

_ROWS: Final = (
    Fault("none", FaultTarget.NOTHING, "no fault: the baseline for all other rows", _nothing),
    *(
        Fault(
            name,
            FaultTarget.NETWORK,
            NETWORK_FAULTS[name].description,
            _toxic(name),
            padding_bytes=HEAVY_BYTES if name == "slow_reader" else 0,
            overflows=name == "slow_reader",
            drops=name == "timeout",
        )
        for name in _NETWORK
    ),
    Fault("kill", FaultTarget.SOCKETS, "the worker process is killed and restarted", _kill_sockets),
    Fault(
        "kill while offline",
        FaultTarget.SOCKETS,
        "users are disconnected, and the worker is killed and restarted while they are offline",
        _kill_sockets_while_offline,
    ),
    Fault(
        "pause",
        FaultTarget.SOCKETS,
        "the worker process is stopped, as on a frozen machine, and continues",
        _pause_sockets,
    ),
    Fault(
        "restart",
        FaultTarget.SOCKETS,
        "a rolling deployment: the worker shuts down gracefully and restarts",
        _restart_sockets,
    ),
    Fault("agents' kill", FaultTarget.AGENTS, "the worker that runs the agents is killed and restarted", _kill_agents),
    Fault("broker's kill", FaultTarget.BROKER, "the broker is killed and restarted", _kill_broker),
    Fault("broker's pause", FaultTarget.BROKER, "the broker process is stopped and continues", _pause_broker),
    Fault(
        "broker's partition",
        FaultTarget.BROKER,
        "bytes to the broker are delayed until the partition ends",
        _partition_broker,
    ),
    Fault(
        "broker's listener",
        FaultTarget.BROKER,
        "the workers' pub/sub connections are cut, and all other connections stay up",
        _cut_subscriptions,
    ),
    Fault("broker's reset", FaultTarget.BROKER, "every connection to the broker is reset repeatedly", _cut_broker),
)


def fault_table() -> pd.DataFrame:
    """Return one row for each fault: its name, its target, and the real-world event that it models."""
    return pd.DataFrame({"fault": row.name, "acts on": str(row.target), "models": row.description} for row in _ROWS)


def faults_named(names: Sequence[str]) -> list[Fault]:
    """Return the named faults and the baseline, or all faults if `names` is empty.

    Raises InvalidParameter if `names` is not a list, and UnknownName for an unknown name.
    """
    if not isinstance(names, list | tuple):
        raise InvalidParameter("faults", names, "a list of names, such as ['timeout']")
    for name in names:
        if name not in FAULTS:
            raise UnknownName("fault", name, tuple(FAULTS))
    return [row for row in _ROWS if not names or row.name in names or row.target is FaultTarget.NOTHING]


FAULTS: Final = {row.name: row for row in _ROWS}
"""The faults by name, ordered from the user's network back to the broker."""
