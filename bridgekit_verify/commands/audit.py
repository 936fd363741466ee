"""`bridgekit audit`: test the nine links of a chain, and the hub behind them."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import Final

import anyio
import msgspec

from bridgekit_verify.commands.options import add_json, add_variant, at_least_1
from bridgekit_verify.probes.probes import Probe, ProbeAnswer, probe_edges
from bridgekit_verify.variants import variant

__all__ = ["add_arguments", "run"]

DOES_NOT_HOLD = 1
MAX_THREADS: Final = 100
"""The audit of more threads would not end within the scenario's time limit on a slow machine."""
EVIDENCE_CHARACTERS: Final = 270
"""Maximum length of the printed evidence of a link: about three lines. The JSON output contains the whole evidence."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Test the nine links of a chain, and the hub behind them, with a real server. Exit with 1 unless all hold,"
        " and with 130 if a signal stopped the command."
    )
    add_json(parser)
    add_variant(parser)
    parser.add_argument(
        "--threads",
        type=_threads,
        default=3,
        help=f"link 9: threads to test for each kind of thread id, at most {MAX_THREADS} (default 3)",
    )


def _threads(text: str) -> int:
    """Parse a whole number from 1 to MAX_THREADS. Raises ArgumentTypeError."""
    number = at_least_1(text)
    if number > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_THREADS}, not {number}")
    return number


def run(options: argparse.Namespace) -> int:
    chain = variant(options.variant)
    probes = anyio.run(_probed, chain.name, options.seed, options.threads)
    print(_as_json(chain.name, probes) if options.json else _as_text(chain.name, chain.summary, probes))
    return 0 if all(probe.answer is ProbeAnswer.HOLDS for probe in probes) else DOES_NOT_HOLD


async def _probed(name: str, seed: int, threads: int) -> list[Probe]:
    return await probe_edges(variant(name), seed=seed, threads=threads)


def _as_json(name: str, probes: Sequence[Probe]) -> str:
    rows = [
        {
            "link": probe.link.number,
            "name": probe.link.name,
            "reported": probe.link.reported,
            "answer": probe.answer,
            "evidence": probe.evidence,
        }
        for probe in probes
    ]
    return msgspec.json.encode({"variant": name, "probes": rows}).decode()


def _as_text(name: str, summary: str, probes: Sequence[Probe]) -> str:
    lines = [f"{name}: {summary}", ""]
    for probe in probes:
        lines.append(f"{probe.link.number}  {probe.link.name:<28}  {probe.answer}")
        evidence = textwrap.shorten(probe.evidence, EVIDENCE_CHARACTERS, placeholder=" …")
        lines += textwrap.wrap(evidence, 92, initial_indent="   ", subsequent_indent="   ")
    holding = sum(probe.answer is ProbeAnswer.HOLDS for probe in probes)
    return "\n".join((*lines, "", f"{holding} of {len(probes)} links hold"))
