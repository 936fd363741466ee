"""One probe for each link: hand it what the chain hands it, and look at what it hands on.

A probe judges its own link alone, whatever the links before it do, so that a broken link is named and its
neighbours are not. Where a link cannot be tried because another fails, the answer is *unknown*.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

import anyio

from bridgekit.chain import LINKS, Link
from bridgekit.chain.link_1_startup import create_app
from bridgekit.errors import DeterministicStartupError, first_error
from bridgekit.measure.attempts import ATTEMPTS, THREADS_A_FAMILY
from bridgekit.measure.bench import Bench, Broken, Untried, thinking
from bridgekit.measure.workload import AGENT, seeded, tools
from bridgekit.transport.server import serving
from bridgekit.variants import Variant

__all__ = ["Answer", "Probe", "probe", "probe_all", "probe_each"]

PROBE_SECONDS: Final = 20.0


class Answer(enum.StrEnum):
    """What a probe may answer."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Probe:
    """One link, tried."""

    link: Link
    answer: Answer
    evidence: str
    """What was seen, in one sentence."""


async def probe(link: int, variant: Variant, *, seed: int = 0, threads: int = THREADS_A_FAMILY) -> Probe:
    """Try one link of a variant."""
    return (await probe_all(variant, seed=seed, threads=threads))[link - 1]


async def probe_all(variant: Variant, *, seed: int = 0, threads: int = THREADS_A_FAMILY) -> list[Probe]:
    """Try the nine links of a variant, over a real server, and answer in the order of the chain.

    Link 9 is tried with that many threads of every family of thread ids; three show whether one leaks into another.
    """
    agents = {AGENT: thinking(variant.agent)}
    app = create_app(variant.parts(agents, hexadecimal=seeded(seed), tools=tools(), seed=seed))
    try:
        async with serving(app) as url:
            bench = Bench(variant, app, url, seed, threads)
            return [await _try(link, ATTEMPTS[link.number], bench) for link in LINKS]
    except DeterministicStartupError as refused:
        return [_after_refusal(link, refused) for link in LINKS]


async def probe_each(variants: Iterable[Variant], *, seed: int = 0) -> dict[str, list[Probe]]:
    """The nine probes of each variant, by its name."""
    return {row.name: await probe_all(row, seed=seed) for row in variants}


async def _try(link: Link, attempt: Callable[[Bench], Awaitable[str]], bench: Bench) -> Probe:
    try:
        with first_error(), anyio.fail_after(PROBE_SECONDS):
            return Probe(link, Answer.HOLDS, await attempt(bench))
    except Untried as untried:
        return Probe(link, Answer.UNKNOWN, str(untried))
    except Broken as broken:
        return Probe(link, Answer.DOES_NOT_HOLD, str(broken))


def _after_refusal(link: Link, refused: DeterministicStartupError) -> Probe:
    if link.number == min(refused.link, len(LINKS)):
        return Probe(link, Answer.DOES_NOT_HOLD, f"startup refused: {refused}")
    return Probe(link, Answer.UNKNOWN, "the application did not start")
