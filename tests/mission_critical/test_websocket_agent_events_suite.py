"""The audit's first verification step, at the audit's path: do the five critical events reach their users?

    python tests/mission_critical/test_websocket_agent_events_suite.py [--variant sound] [--family "chat_<n>"]

Runs the scenario of `bridgekit audit` through a whole chain, with a real server and real sockets: two users with
several threads each, two sockets for each thread, three agents and several runs at once. By default, the chain is the
one that the audit means, with its Fix 1. Prints one line per check, and exits with 1 unless all hold. pytest runs it
too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import anyio
import pytest

from bridgekit.errors import BridgekitError, DeterministicStartupError
from bridgekit.events import CRITICAL, EventType
from bridgekit_verify.measure.workload import FAMILIES
from bridgekit_verify.probes.judgement import ViolationKind, label
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.scenario_agents import CONFUSABLE, family_threads
from bridgekit_verify.probes.scenario_clients import Client
from bridgekit_verify.probes.scenario_run import judge_all, observe
from bridgekit_verify.variants import variant

pytestmark = pytest.mark.slow

DEFAULT_VARIANT = "fix 1"
"""The audit runs its suite after Fix 1, which it calls critical."""
SENTENCES = {
    ViolationKind.LOST: "no event is lost",
    ViolationKind.MISROUTED: "no event reaches another user or another thread",
    ViolationKind.DUPLICATED: "each event arrives once",
    ViolationKind.REORDERED: "the events of a run arrive in the order in which they were emitted",
    ViolationKind.CHANGED: "every field of an event arrives unchanged",
    ViolationKind.FALSE_GAP: "no gap is signalled and no number is skipped unless an event is lost",
    ViolationKind.FALSE_RECEIPT: "an event is reported as sent exactly if a socket read it",
    ViolationKind.MISCOUNTED: "each event is counted once, at the link that lost it",
    ViolationKind.HANDOVER: "each link holds the bridge that it was given",
}


@dataclass(frozen=True)
class Check:
    """One sentence about the chain, and whether it holds; None if there was nothing to judge."""

    sentence: str
    holds: bool | None
    evidence: str = ""

    def __str__(self) -> str:
        mark = {True: "ok     ", False: "FAIL   ", None: "unknown"}[self.holds]
        return f"{mark} {self.sentence}" + (f": {self.evidence}" if self.evidence else "")


def checks(seen: Observation) -> list[Check]:
    """Return the result of each check on what the sockets read, and on what each link did."""
    return [*(_arrival(seen, event_type) for event_type in CRITICAL), *_properties(seen)]


def _arrival(seen: Observation, event_type: EventType) -> Check:
    """Check that every socket of a thread reads an event of this type in each run that it was open for."""
    sentence = f"every run's {event_type} arrives at each socket of its thread"
    arrived = [any(frame.get("type") == event_type for frame in frames) for frames in _frames_of_runs(seen)]
    if not arrived:
        return Check(sentence, None, "no run ended and no socket was open")
    missing = arrived.count(False)
    return Check(sentence, not missing, f"missing {missing} of {len(arrived)} times" if missing else "")


def _frames_of_runs(seen: Observation) -> Iterator[list[dict[str, object]]]:
    """Yield the frames of each requested run that each socket of its thread read."""
    for call in seen.recording.of("supervisor", "run"):
        request = call.given["request"]
        if seen.plans[label(request)].ending != "returns":
            continue
        for client in seen.clients:
            if client.owned.thread_id == call.given["thread_id"] and _open_during(client, call.entered, call.left):
                started = [each.get("run_id") for each in client.frames if _starts(each, request)]
                yield [each for each in client.frames if each.get("run_id") in started]


def _starts(frame: dict[str, object], request: str) -> bool:
    payload = frame.get("payload")
    return frame.get("type") == EventType.AGENT_STARTED and payload == {
        "status": "started",
        "context": {"request": request},
        "message": None,
    }


def _open_during(client: Client, first: int, last: int | None) -> bool:
    closed = client.closed_by_client
    return client.opened < first and (closed is None or (last is not None and closed > last + 1))


def _properties(seen: Observation) -> Iterator[Check]:
    judged = judge_all(seen)
    frames = sum(len(client.frames) for client in seen.clients)
    receipts = len(seen.recording.of("bridge", "notify"))
    for kind, sentence in SENTENCES.items():
        found = [(link, text) for link, each in judged.items() for of, text in each.violations if of is kind]
        if found:
            link, evidence = found[0]
            links = sorted({number for number, _ in found})
            others = f", and of link{'s' * (len(links) > 2)} {', '.join(map(str, links[1:]))}" if links[1:] else ""
            yield Check(sentence, False, f"a fault of link {link}{others}: {evidence}")
        elif not (receipts if kind in (ViolationKind.MISCOUNTED, ViolationKind.HANDOVER) else frames):
            yield Check(sentence, None, "no socket read an event" if receipts else "no event reached the bridge")
        else:
            yield Check(sentence, True if seen.complete else None)


async def run_suite(variant_name: str, family_name: str, seed: int) -> list[Check]:
    """Run the scenario through a variant, and check what its links did and its users' sockets read.

    If all checks hold on the ASGI edge, run the scenario again on the native edge.
    """
    chain, threads = variant(variant_name), family_threads(family_name, seed=seed)
    try:
        found = checks(await observe(chain, threads, seed=seed))
        if all(check.holds for check in found):  # bridgekit serve uses the native edge
            found = checks(await observe(chain, threads, seed=seed, edge="native"))
        return found
    except DeterministicStartupError as refused:
        return [Check("the application starts", False, f"a fault of {refused}")]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--variant", default=DEFAULT_VARIANT, help=f"the variant of the chain (default: {DEFAULT_VARIANT})"
    )
    parser.add_argument("--family", default="thread_123", help=f"the family of thread ids, or {CONFUSABLE}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        chain = variant(options.variant)
        print(f"chain: {chain.name}, {chain.summary}; thread ids: {options.family}")
        found = anyio.run(run_suite, options.variant, options.family, options.seed)
    except BridgekitError as error:
        parser.error(str(error))
    for check in found:
        print(check)
    holding = sum(check.holds is True for check in found)
    print(f"{holding} of {len(found)} checks hold: {options.variant}, {options.family}")
    return 0 if holding == len(found) else 1


@pytest.mark.short_form(2)
@pytest.mark.parametrize("family_name", [*FAMILIES, CONFUSABLE])
def test_critical_events_reach_their_users_in_the_sound_chain(family_name: str) -> None:
    assert main(["--variant", "sound", "--family", family_name]) == 0


@pytest.mark.short_form(3)
@pytest.mark.parametrize(
    ("variant_name", "family_name", "code"),
    [
        ("as reported", "thread_123", 1),
        ("as committed", "thread_123", 1),
        ("fix 1", "thread_123", 0),
        ("fix 1", "chat_<n>", 1),
        ("fix 1", "starts with another id", 1),
        ("link 5 broken", "thread_123", 1),
        ("link 8 broken", "thread_123", 1),
    ],
)
def test_suite_exits_with_1_unless_the_chain_delivers(variant_name: str, family_name: str, code: int) -> None:
    assert main(["--variant", variant_name, "--family", family_name]) == code


def test_suite_runs_the_chain_with_fix_1_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("chain: fix 1, the run id contains the thread id")


def test_chain_that_delivers_nothing_leaves_the_checks_of_arrivals_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--variant", "as reported"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "unknown no event reaches another user or another thread: no socket read an event" in lines
    [lost] = [line for line in lines if "no event is lost" in line]
    assert lost.startswith("FAIL    no event is lost: a fault of link 9:")


def test_suite_exits_with_2_for_an_unknown_variant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--variant", "nope"])
    assert exited.value.code == 2
    assert "no variant is called 'nope'" in capsys.readouterr().err


if __name__ == "__main__":
    sys.exit(main())
