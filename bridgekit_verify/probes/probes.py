"""Probe each link and the hub: run the scenario through a sound chain that has only the probed link from the variant.

A probe judges its link only by what the link received and passed on, so that a broken link does not change the answers
about other links. If no call reached a link, the answer is *unknown*.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.errors import DeterministicStartupError
from bridgekit.events import AgentEvent, Receipt
from bridgekit.transport import hub
from bridgekit_verify.as_committed import HubThatAlwaysSaysSent, HubWithoutThreads
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from bridgekit_verify.links import LINKS, Link
from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.measure.thread_id_families import FAMILIES, Families, families_by_name
from bridgekit_verify.measure.workload import AGENT, seeded
from bridgekit_verify.probes.judgement import Judgement, ViolationKind
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.rules_of_link_9 import FamilyRoute, judge_families, route_families
from bridgekit_verify.probes.scenario_agents import audited_threads, thinking
from bridgekit_verify.probes.scenario_run import SCENARIO_TIMEOUT_SECONDS, judge, observe, quiet
from bridgekit_verify.variants import SOUND, Variant

__all__ = [
    "HUB",
    "THREADS_PER_FAMILY",
    "Observations",
    "Probe",
    "ProbeAnswer",
    "probe",
    "probe_all",
    "probe_each",
    "probe_edges",
    "probe_hub",
    "probe_ten",
]

THREADS_PER_FAMILY: Final = 3
HUB: Final = Link(
    hub.LINK, "Hub and sockets", hub.Hub.publish, "a frame, to each of the thread's sockets", "not in its list"
)
"""Link 10, the hub, which follows the audit's nine links."""
PARTS: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("start",),
    2: ("supervisor",),
    3: ("registry",),
    4: ("engine",),
    5: ("core",),
    6: ("agent",),
    7: ("adapter",),
    8: ("adapter",),
    9: ("run_ids", "resolver", "mapping", "bridge", "stores"),
    10: ("hub", "stores"),
}
"""The fields of a variant that implement each link."""


REFUSED_HUBS: Final[Mapping[type[hub.Hub], str]] = {
    HubWithoutThreads: "a bridge that cannot reach any user",
    HubThatAlwaysSaysSent: "a bridge that reports every event as sent",
}
"""Hubs that startup must refuse, each with a phrase that describes a bridge with this hub."""


class ProbeAnswer(enum.StrEnum):
    """Whether the probed link holds."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Probe:
    """The answer and the evidence for one tested link."""

    link: Link
    answer: ProbeAnswer
    evidence: str
    """What the probe observed, in one sentence."""
    sample: Sample | None = None
    """The number of observations behind the answer, or None if nothing was tested."""


async def probe(
    link: int,
    variant: Variant,
    *,
    seed: int = 0,
    threads: int = THREADS_PER_FAMILY,
    families: Families = FAMILIES,
    edge: str = "asgi",
) -> Probe:
    """Test one link of a variant in an otherwise sound chain."""
    return (await _run_probes(variant, (LINKS[link - 1],), Observations(seed, threads, edge, families)))[0]


async def probe_all(
    variant: Variant,
    *,
    seed: int = 0,
    threads: int = THREADS_PER_FAMILY,
    families: Families = FAMILIES,
    edge: str = "asgi",
    shared: Observations | None = None,
) -> list[Probe]:
    """Test the nine links of a variant over a real server. The answers are in the order of the chain.

    Link 9 is also tested with `threads` threads of every family of thread ids. To judge link 9 only by thread ids of
    your own, pass `families={"mine": ["support-42", "support-43"]}`. With `shared`, observations of earlier probes are
    reused.
    """
    return await _run_probes(variant, LINKS, shared or Observations(seed, threads, edge, families))


async def probe_hub(variant: Variant, *, seed: int = 0, threads: int = THREADS_PER_FAMILY, edge: str = "asgi") -> Probe:
    """Test link 10, from the hub to a thread's sockets. The audit does not list this link."""
    return (await _run_probes(variant, (HUB,), Observations(seed, threads, edge)))[0]


async def probe_ten(
    variant: Variant,
    *,
    seed: int = 0,
    threads: int = THREADS_PER_FAMILY,
    edge: str = "asgi",
    shared: Observations | None = None,
) -> list[Probe]:
    """Test the nine links and the hub. With `shared`, observations of earlier probes are reused."""
    return await _run_probes(variant, (*LINKS, HUB), shared or Observations(seed, threads, edge))


async def probe_edges(variant: Variant, *, seed: int = 0, threads: int = THREADS_PER_FAMILY) -> list[Probe]:
    """Test the nine links, and the hub on both edges: ASGI and, if all links hold, native."""
    probes = await probe_ten(variant, seed=seed, threads=threads)
    if any(each.answer is not ProbeAnswer.HOLDS for each in probes):
        return probes
    native = await probe_hub(variant, seed=seed, edge="native")
    evidence = f"on the native edge: {native.evidence}"
    if native.answer is ProbeAnswer.HOLDS:
        evidence = f"on each of the two edges, {native.evidence}"
    return [*probes[:-1], replace(native, evidence=evidence)]


async def probe_each(variants: Iterable[Variant], *, seed: int = 0) -> dict[str, list[Probe]]:
    """Return the nine probes of each variant, by the variant's name."""
    shared = Observations(seed)
    return {row.name: await _run_probes(row, LINKS, shared) for row in variants}


class Observations:
    """Observations that probes share, so that equal chains run only once."""

    def __init__(
        self,
        seed: int = 0,
        threads: int = THREADS_PER_FAMILY,
        edge: str = "asgi",
        families: Families = FAMILIES,
    ) -> None:
        self._families = families_by_name(families)
        self.chosen_families = self._families != dict(FAMILIES)
        """Whether the caller chose the families of thread ids, so that link 9 is judged only by these families."""
        self._seed = seed
        self._threads = threads
        self._edge = edge
        self._known: dict[Variant, Observation | DeterministicStartupError] = {}
        self._routes: dict[Variant, list[FamilyRoute]] = {}
        self._judged: dict[tuple[int, Variant], Judgement] = {}

    def judge(self, number: int, chain: Variant, seen: Observation) -> Judgement:
        """Judge one link by the observation of a chain. The caller may modify the returned judgement."""
        if (number, chain) not in self._judged:
            self._judged[number, chain] = judge(number, seen)
        found = self._judged[number, chain]
        return replace(found, violations=list(found.violations))

    async def of(self, chain: Variant) -> Observation | DeterministicStartupError:
        """Return the observation of the chain, or the error if the chain did not start."""
        if chain not in self._known:
            self._known[chain] = await self._observe(chain)
        return self._known[chain]

    async def routes(self, chain: Variant) -> list[FamilyRoute]:
        """Return how the chain routes every family of thread ids. `of` returns the observation of the same run."""
        if chain not in self._routes:
            self._routes[chain] = []
            self._known[chain] = await self._observe(chain, families=True)
        return self._routes[chain]

    async def _observe(self, chain: Variant, *, families: bool = False) -> Observation | DeterministicStartupError:
        async def route(seen: Observation) -> None:
            self._routes[chain] = await route_families(seen, self._families, self._threads, self._seed)

        and_then = route if families else None
        try:
            return await observe(chain, audited_threads(), seed=self._seed, edge=self._edge, and_then=and_then)
        except DeterministicStartupError as refused:
            return refused


async def _run_probes(variant: Variant, links: Sequence[Link], observed: Observations) -> list[Probe]:
    if 9 in [link.number for link in links]:
        await observed.routes(isolated(variant, 9))
    answers = [await _answer(link, variant, observed) for link in links]
    started = await _started(variant)
    if isinstance(started, Application) or any(each.answer is ProbeAnswer.DOES_NOT_HOLD for each in answers):
        return answers
    if started.link not in [link.number for link in links]:
        return [Probe(link, ProbeAnswer.UNKNOWN, f"the application did not start: {started}") for link in links]
    return [_refused(each.link, started) if each.link.number == started.link else each for each in answers]


def _refused(link: Link, refused: DeterministicStartupError) -> Probe:
    return Probe(link, ProbeAnswer.DOES_NOT_HOLD, f"startup refused: {refused}", Sample(1, "startups"))


async def _answer(link: Link, variant: Variant, observed: Observations) -> Probe:
    number = link.number
    chain = isolated(variant, number)
    seen = await observed.of(chain)
    if isinstance(seen, DeterministicStartupError):
        if seen.link == number:
            return _refused(link, seen)
        return Probe(link, ProbeAnswer.UNKNOWN, f"the application did not start: {seen}")
    found = observed.judge(number, chain, seen)
    if number == 9:
        families = judge_families(await observed.routes(chain))
        found = families if observed.chosen_families else _with(families, found)
    if number == 1 and not found.violations:
        await _judge_checks(variant, found)
    sample = Sample(max(found.tried, 1), "calls")  # a violation can be found although no call was judged
    if found.violations:
        return Probe(link, ProbeAnswer.DOES_NOT_HOLD, found.evidence, sample)
    if not found.tried:
        first = next((f"link {number} raised {type(error).__name__}: {error}" for number, error in seen.errors), "")
        return Probe(link, ProbeAnswer.UNKNOWN, first or "nothing reached this link")
    if not seen.complete:
        return Probe(link, ProbeAnswer.UNKNOWN, f"the scenario did not end within {SCENARIO_TIMEOUT_SECONDS:g} s")
    return Probe(link, ProbeAnswer.HOLDS, found.summary, sample)


def _with(first: Judgement, second: Judgement) -> Judgement:
    summary = "; ".join((first.summary, second.summary))
    return Judgement(first.link, first.tried and second.tried, first.violations or second.violations, summary)


def isolated(variant: Variant, link: int) -> Variant:
    """Return the sound chain with one link of the variant, and without startup checks, which could refuse the chain."""
    chain = replace(SOUND, self_checks=(), **{name: getattr(variant, name) for name in PARTS[link]})
    if link == 8 and chain.adapter.set_websocket_bridge is not WebSocketBridgeAdapter.set_websocket_bridge:
        return replace(chain, adapter=_with_sound_binding(chain.adapter))
    return chain


def _with_sound_binding(adapter: Any) -> Any:
    """Return the adapter class with a sound link 7, so that only its link 8 is tested."""

    def set_websocket_bridge(
        self: Any, bridge: object, run_id: object, agent_name: str, *, thread_id: object = None
    ) -> None:
        self.bridge, self.run_id, self.agent_name, self.thread_id = bridge, run_id, agent_name, thread_id

    return type(f"Bound{adapter.__name__}", (adapter,), {"set_websocket_bridge": set_websocket_bridge})


async def _judge_checks(variant: Variant, found: Judgement) -> None:
    """Check that startup refuses each hub of REFUSED_HUBS, and that the self-checks leave the counters at zero."""
    chain = replace(SOUND, start=variant.start, self_checks=variant.self_checks)
    started = await _started(chain, observers=(_observe,), payload_hook=_convert)
    if isinstance(started, Application):
        counters, bridge = started.counters, started.bridge
        found.expect(_observe in bridge.observers, ViolationKind.HANDOVER, "startup gives the bridge no observers")
        found.expect(
            bridge.payload_hook is _convert, ViolationKind.HANDOVER, "startup gives the bridge no payload hook"
        )
        count = counters.sent.total() + counters.kept.total() + counters.lost.total()
        found.expect(
            not count,
            ViolationKind.MISCOUNTED,
            f"before the first run, {count} events of the startup checks are counted",
        )
    for broken, what in REFUSED_HUBS.items():
        refused = await _started(replace(chain, hub=broken))
        evidence = f"no startup check refuses {what}"
        if not found.expect(not isinstance(refused, Application), ViolationKind.HANDOVER, evidence):
            return
        found.summary += f"; startup refuses {what}"


def _observe(event: AgentEvent, receipt: Receipt) -> None:
    """Do nothing. Startup must pass this observer to the bridge."""


def _convert(value: object) -> object:
    """Return the value. Startup must pass this payload hook to the bridge."""
    return value


async def _started(variant: Variant, **choices: Any) -> Application | DeterministicStartupError:
    """Start an application without a server. Return the application, or the error with which startup refused."""
    config = replace(variant.config({AGENT: thinking(variant.agent)}, hex_source=seeded(0)), **choices)
    try:
        with quiet(), DeterministicStartupError.at(1, "the application"):
            async with config.stores() as stores:
                return await variant.start(replace(config, db_session_factory=DeclaredOwners()), stores)
    except DeterministicStartupError as refused:
        return refused
