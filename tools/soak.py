"""Run the fault matrix for a given time and write the result as a page: `make soak SOAK_MINUTES=60`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import anyio

from bridgekit import __version__
from bridgekit_verify.faults.trials.matrix import Soak, soak

PAGE = """\
# Soak test of the fault matrix

Written by `make soak`. Each round tests every fault in every delivery mode, with another seed, pace and window.
Notebook 12 explains the names. *At most once* has no guarantee and is included for comparison.

{date} UTC, bridgekit {version}, Python {python}, {machine}: {rounds} rounds in {minutes:.0f} minutes.
Lost silently in modes with a log: {silent_losses}. Guarantees violated: {violations}.

| fault | delivery | delivered | of | lost silently | lost with a gap | duplicated | misrouted | unanswered |
|---|---|--:|--:|--:|--:|--:|--:|--:|
{rows}
"""


def main() -> int:
    """Run the soak test and return 1 if a guarantee was violated, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="duration in minutes (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="the first round's seed (default 0)")
    parser.add_argument("--out", type=Path, default=Path("docs/results/soak.md"), help="Markdown file to write")
    options = parser.parse_args()
    found = anyio.run(_soaked, options.minutes, options.seed)
    options.out.write_text(page(found), encoding="utf-8")
    print(f"{options.out} written")
    for violation in found.violations:
        print(f"violated: {violation}", file=sys.stderr)
    return 1 if found.violations else 0


async def _soaked(minutes: float, seed: int) -> Soak:
    return await soak(minutes=minutes, seed=seed, print_line=lambda line: print(line, flush=True))


def page(found: Soak) -> str:
    """Return the result as Markdown."""
    rows = "\n".join(
        f"| {fault} | {delivery} | {counts['delivered']:,} | {counts['expected']:,} | {counts['lost silently']:,}"
        f" | {counts['lost with a gap']:,} | {counts['duplicated']:,} | {counts['misrouted']:,}"
        f" | {counts['unanswered']:,} |"
        for (fault, delivery), counts in found.cells.items()
    )
    return PAGE.format(
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        version=__version__,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        rounds=found.rounds,
        minutes=found.seconds / 60,
        silent_losses=found.silent_losses,
        violations=len(found.violations),
        rows=rows,
    )


if __name__ == "__main__":
    sys.exit(main())
