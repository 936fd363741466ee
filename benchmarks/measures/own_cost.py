"""The bridge without a socket: what one event costs in it, how often it is encoded, what a live run holds."""

from __future__ import annotations

from typing import Final

from benchmarks.children import child
from benchmarks.measures.rounds import say
from benchmarks.series import Key, Series

__all__ = ["FAN_OUT", "own_cost"]

FAN_OUT: Final = 100


async def own_cost(series: Series, *, rounds: int, runs: int, mappings: int) -> None:
    """Each round in a process of its own."""
    for _ in range(rounds):
        async with child("the bridge alone", "benchmarks.inside") as (inside, _ready):
            for what, us in (await inside.ask("own cost", runs=runs)).items():
                series.add(Key("own CPU µs", "bridgekit", what), us)
                say(f"  {what}: {us:.2f} µs CPU")
            for subscribers in (1, FAN_OUT):
                counted = (await inside.ask("encodings", subscribers=subscribers))["encodings"]
                series.add(Key("encodings/event", "bridgekit", f"{subscribers} subscribers"), counted)
            mapped = (await inside.ask("mapping", mappings=mappings))["bytes"]
        series.add(Key("bytes/live mapping", "bridgekit"), mapped)
        say(f"  a live run in the mapping: {mapped:.0f} bytes")
