"""One probe per link and one for the hub: pass it what the chain passes it, and check what it passes on.

A probe judges only its own link, whatever the links before it do, so that it names a broken link and not its
neighbours. If a link cannot be tested because another one fails, the answer is *unknown*.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from bridgekit.chain import LINKS, Link
from bridgekit.chain.link_1_startup import create_app
from bridgekit.errors import DeterministicStartupError, unwrap_single_error
from bridgekit.serve.in_process import serving
from bridgekit.transport import hub
from bridgekit_verify.measure.error_origin import link_of_error, raised_by_harness
from bridgekit_verify.measure.families import FAMILIES, Families, families_by_name
from bridgekit_verify.measure.workload import AGENT, seeded, tools
from bridgekit_verify.probes.probe_cases import PROBE_CASES
from bridgekit_verify.probes.probe_fixture import ProbeFailed, ProbeFixture, ProbeInconclusive, thinking
from bridgekit_verify.probes.routing_cases import THREADS_PER_FAMILY
from bridgekit_verify.variants import Variant

__all__ = ["HUB", "Probe", "ProbeAnswer", "probe", "probe_all", "probe_each", "probe_hub", "probe_ten"]

PROBE_TIMEOUT_SECONDS: Final = 20.0
HUB: Final = Link(hub.LINK, "Hub", hub, hub.Hub.publish, "a frame, to each of the thread's sockets", "not in its list")
"""The link after the nine."""


class ProbeAnswer(enum.StrEnum):
    """The possible answers of a probe."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Probe:
    """One tested link."""

    link: Link
    answer: ProbeAnswer
    evidence: str
    """What the probe observed, in one sentence."""


async def probe(
    link: int, variant: Variant, *, seed: int = 0, threads: int = THREADS_PER_FAMILY, families: Families = FAMILIES
) -> Probe:
    """Test one link of a variant."""
    return (await _run_probes(variant, (LINKS[link - 1],), seed=seed, threads=threads, families=families))[0]


async def probe_all(
    variant: Variant, *, seed: int = 0, threads: int = THREADS_PER_FAMILY, families: Families = FAMILIES
) -> list[Probe]:
    """Test the nine links of a variant over a real server; the answers are in the order of the chain.

    Link 9 is tested with `threads` threads of every family of thread ids; three show whether one thread leaks into
    another. For thread ids of your own, pass `families={"mine": ["support-42", "support-43"]}`.
    """
    return await _run_probes(variant, LINKS, seed=seed, threads=threads, families=families)


async def probe_hub(variant: Variant, *, seed: int = 0, threads: int = THREADS_PER_FAMILY) -> Probe:
    """Test the link from the hub to a thread's sockets, which the audit's list does not contain."""
    return (await _run_probes(variant, (HUB,), seed=seed, threads=threads))[0]


async def probe_ten(variant: Variant, *, seed: int = 0, threads: int = THREADS_PER_FAMILY) -> list[Probe]:
    """Test the nine links and the hub over one server.

    A refusal by link 10 is then attributed to the hub, and not to link 9.
    """
    return await _run_probes(variant, (*LINKS, HUB), seed=seed, threads=threads)


async def _run_probes(
    variant: Variant, links: Sequence[Link], *, seed: int, threads: int, families: Families = FAMILIES
) -> list[Probe]:
    chosen = families_by_name(families)
    agents = {AGENT: thinking(variant.agent)}
    config = variant.config(agents, hex_source=seeded(seed), tools=tools(), seed=seed)
    app = create_app(config, start=variant.start)
    try:
        async with serving(app) as url:
            fixture = ProbeFixture(variant, app, url, seed, threads, chosen)
            return [await _try(link, PROBE_CASES[link.number], fixture) for link in links]
    except DeterministicStartupError as refused:
        named = refused.link if HUB in links else min(refused.link, LINKS[-1].number)
        return [_after_refusal(link, refused, named) for link in links]


async def probe_each(variants: Iterable[Variant], *, seed: int = 0) -> dict[str, list[Probe]]:
    """Return the nine probes of each variant, by its name."""
    return {row.name: await probe_all(row, seed=seed) for row in variants}


async def _try(link: Link, case: Callable[[ProbeFixture], Awaitable[str]], fixture: ProbeFixture) -> Probe:
    """Run one probe. An error raised by a link is evidence; an error raised by the probe is a bug and propagates."""
    try:
        with unwrap_single_error(), anyio.fail_after(PROBE_TIMEOUT_SECONDS):
            return Probe(link, ProbeAnswer.HOLDS, await case(fixture))
    except ProbeInconclusive as inconclusive:
        return Probe(link, ProbeAnswer.UNKNOWN, str(inconclusive))
    except ProbeFailed as failed:
        return Probe(link, ProbeAnswer.DOES_NOT_HOLD, str(failed))
    except Exception as error:
        raised_by = None if raised_by_harness(error) else link_of_error(error)
        if raised_by is None:
            raise
        reason = f"raised {type(error).__name__}: {error}"
        if raised_by == link.number:
            return Probe(link, ProbeAnswer.DOES_NOT_HOLD, reason)
        return Probe(link, ProbeAnswer.UNKNOWN, f"link {raised_by} {reason}")


def _after_refusal(link: Link, refused: DeterministicStartupError, named: int) -> Probe:
    if link.number == named:
        return Probe(link, ProbeAnswer.DOES_NOT_HOLD, f"startup refused: {refused}")
    return Probe(link, ProbeAnswer.UNKNOWN, "the application did not start")
