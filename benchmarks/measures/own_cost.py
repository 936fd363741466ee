"""Measure the bridge without a socket: CPU time per event, encodings per event, and memory of an active run."""

from __future__ import annotations

from typing import Final

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.measures.interleaving import log_progress
from benchmarks.process_messages import CountEncodings, MeasuredValues, MeasureMapping, MeasureOwnCost
from bridgekit_verify.harness.child_side import Ready
from bridgekit_verify.harness.processes import start_module

__all__ = ["FAN_OUT", "own_cost"]

FAN_OUT: Final = 100


async def own_cost(series: Series, *, rounds: int, runs: int, mappings: int) -> None:
    """Measure each round in a new process, and add the values to `series`."""
    for _ in range(rounds):
        async with start_module("benchmarks.own_cost_process", name="the bridge alone") as process:
            await process.receive(Ready, wanted="start")
            for what, us in (await process.request(MeasureOwnCost(runs), MeasuredValues)).values.items():
                series.add(SeriesKey("own CPU µs", "bridgekit", what), us)
                log_progress(f"  {what}: {us:.2f} µs CPU")
            for subscribers in (1, FAN_OUT):
                counted = (await process.request(CountEncodings(subscribers), MeasuredValues)).values["encodings"]
                series.add(SeriesKey("encodings/event", "bridgekit", f"{subscribers} subscribers"), counted)
            mapped = (await process.request(MeasureMapping(mappings), MeasuredValues)).values["bytes"]
        series.add(SeriesKey("bytes/live mapping", "bridgekit"), mapped)
        log_progress(f"  a live run in the mapping: {mapped:.0f} bytes")
