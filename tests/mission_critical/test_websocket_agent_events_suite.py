"""The audit's first verification step, at the audit's path: do the five critical events reach their users?

    python tests/mission_critical/test_websocket_agent_events_suite.py [--variant "fix 1"] [--family "chat_<n>"]

Uses a real server and real sockets. Prints one line per check, and exits with 1 if a check fails. pytest runs it too.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

import anyio
import pytest

from bridgekit.errors import BridgekitError
from bridgekit.events import CRITICAL
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.workload import FAMILIES, Workload, thread_ids
from bridgekit_verify.variants import variant

pytestmark = pytest.mark.slow

USERS = 4
RUNS = 3


def checks(measurement: Measurement) -> dict[str, bool]:
    """Return the result of each check on runs and users, by its sentence."""
    verdict, history = measurement.verdict, measurement.history
    read = Counter((arrival.socket.number, arrival.key.request) for arrival in history.arrivals if arrival.key)
    types = Counter(arrival.key.type for arrival in history.arrivals if arrival.key)
    runs = len(measurement.workload.threads) * measurement.workload.runs_per_thread
    return {
        **{f"every run's {event_type} arrives": types[event_type] == runs for event_type in CRITICAL},
        "every user reads all five events of each of their runs": sorted(read.values()) == [len(CRITICAL)] * runs,
        "no event is lost": verdict.lost == 0 < verdict.expected,
        "no event reaches another user": verdict.misrouted == 0 < verdict.expected,
        "events arrive in order and once": verdict.reordered == verdict.extra_copies == 0 < verdict.frames,
        "no event is reported as sent unless a socket read it": verdict.false_success == 0 < verdict.acknowledged,
    }


async def run_suite(variant_name: str, family_name: str, seed: int) -> dict[str, bool]:
    """Run several users' runs concurrently through a variant, and check what their sockets read."""
    workload = Workload(threads=thread_ids(family_name, USERS, seed=seed), runs_per_thread=RUNS, at_once=USERS)
    return checks(await measure(variant(variant_name), workload, seed=seed))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--variant", default="sound", help="the variant of the chain (default: sound)")
    parser.add_argument("--family", default="thread_123", help="the family of thread ids (default: thread_123)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        held = anyio.run(run_suite, options.variant, options.family, options.seed)
    except BridgekitError as error:
        parser.error(str(error))
    for sentence, holds in held.items():
        print("ok  " if holds else "FAIL", sentence)
    print(f"{sum(held.values())} of {len(held)} checks hold: {options.variant}, {options.family}")
    return 0 if all(held.values()) else 1


@pytest.mark.parametrize("family_name", FAMILIES)
def test_critical_events_reach_their_users_in_the_sound_chain(family_name: str) -> None:
    assert main(["--family", family_name]) == 0


@pytest.mark.parametrize(
    ("variant_name", "family_name", "code"),
    [
        ("as reported", "thread_123", 1),
        ("as committed", "thread_123", 1),
        ("fix 1", "thread_123", 0),
        ("fix 1", "chat_<n>", 1),
        ("fix 1", "prefixes of one another", 1),
        ("link 5 broken", "thread_123", 1),
        ("link 8 broken", "thread_123", 1),
    ],
)
def test_suite_exits_with_1_unless_the_chain_delivers(variant_name: str, family_name: str, code: int) -> None:
    assert main(["--variant", variant_name, "--family", family_name]) == code


def test_suite_exits_with_2_for_an_unknown_variant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--variant", "nope"])
    assert exited.value.code == 2
    assert "no variant is called 'nope'" in capsys.readouterr().err


if __name__ == "__main__":
    sys.exit(main())
