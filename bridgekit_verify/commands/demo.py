"""`bridgekit demo`: run one agent and show its events as the user's socket reads them."""

from __future__ import annotations

import argparse

import anyio
import msgspec

from bridgekit.events import RoutedEvent
from bridgekit_verify.commands.options import add_json, add_variant, at_least_1
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.history import Socket
from bridgekit_verify.measure.workload import FAMILIES, Workload, own_threads, thread_ids
from bridgekit_verify.variants import variant

__all__ = ["add_arguments", "run"]

NOT_ALL_DELIVERED = 1
SHOWN_CHARACTERS = 88
"""Limit on the characters of a payload that are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run one agent for one user and show its events as they arrive at the user's socket."
    add_json(parser)
    add_variant(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--family", default="thread_123", help=f"kind of thread id: {', '.join(map(repr, FAMILIES))}")
    kind.add_argument("--thread-id", help="a thread id of your own")
    parser.add_argument(
        "--steps", type=at_least_1, default=1, help="number of steps of the agent, three events each (default 1)"
    )


def run(options: argparse.Namespace) -> int:
    own = options.thread_id
    threads = thread_ids(options.family, 1, seed=options.seed) if own is None else own_threads([own])
    workload = Workload(threads=threads, steps=options.steps)
    measurement = anyio.run(_shown, variant(options.variant).name, workload, options.seed, options.json)
    verdict = measurement.verdict
    if not options.json:
        print(f"\n{verdict.delivered} of {verdict.expected} events reached their user")
        for attribution, count in verdict.losses.items():
            print(f"{count} lost at link {attribution.link}: {attribution.reason}")
    return 0 if verdict.delivered == verdict.expected else NOT_ALL_DELIVERED


async def _shown(name: str, workload: Workload, seed: int, as_json: bool) -> Measurement:
    def show(socket: Socket, event: RoutedEvent) -> None:
        print(msgspec.json.encode(event).decode() if as_json else _line(socket, event), flush=True)

    return await measure(variant(name), workload, seed=seed, on_event=show)


def _line(socket: Socket, event: RoutedEvent) -> str:
    payload = msgspec.json.encode(event.payload).decode()
    payload = payload if len(payload) <= SHOWN_CHARACTERS else f"{payload[:SHOWN_CHARACTERS]}…"
    return f"{event.timestamp:%H:%M:%S.%f}  {socket.user_id} reads #{event.seq} {event.type:<15}  {payload}"
