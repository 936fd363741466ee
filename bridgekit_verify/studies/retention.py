"""What a mapping still holds when runs have come and gone: routes, and bytes."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from bridgekit.ids import OpaqueRunIds
from bridgekit.mapping import MemoryStore, RunThreadMappingService
from bridgekit_verify.as_audited import DictMapping
from bridgekit_verify.measure.workload import family, seeded
from bridgekit_verify.studies.stage import Clock

__all__ = ["MAKES", "UNDER_WAY", "Held", "bytes_of", "hold", "retention_table"]


def _as_written(clock: Clock) -> RunThreadMappingService:
    return DictMapping()


def _sound(clock: Clock) -> RunThreadMappingService:
    return RunThreadMappingService(MemoryStore(clock))


MAKES: Final[Mapping[str, Callable[[Clock], RunThreadMappingService]]] = {"fix 3": _as_written, "sound": _sound}
UNDER_WAY: Final = 5
"""One run begins each second, and each takes that many."""


@dataclass(frozen=True)
class Held:
    """What a mapping still holds after so many runs."""

    mapping: str
    cleaned_up: bool
    runs: int
    routes: int
    """Runs that it still answers a thread for."""
    held_bytes: int
    """Of every container, text and number that it keeps, each counted once, by sys.getsizeof."""


async def hold(mapping: str, *, cleaned_up: bool, after: Sequence[int], seed: int = 0) -> list[Held]:
    """Let runs begin and end, and look what is left after so many of them. `mapping` is one of `MAKES`."""
    clock = Clock()
    service = MAKES[mapping](clock)
    run_ids, threads = OpaqueRunIds(seeded(seed)), family("thread_<uuid4>", 100, seed=seed)
    begun, held = [], []
    for number in range(max(after)):
        clock.now = float(number)
        owned = threads[number % len(threads)]
        begun.append(run_ids.new(owned.thread_id))
        await service.register_mapping(begun[-1], owned.thread_id)
        if cleaned_up and number >= UNDER_WAY:
            await service.cleanup_mapping(begun[number - UNDER_WAY])
        if number + 1 in after:
            routes = sum([await service.get_thread_id(run_id) is not None for run_id in begun])
            held.append(Held(mapping, cleaned_up, number + 1, routes, bytes_of(service)))
    return held


def bytes_of(root: object) -> int:
    """What is reachable from there in bytes: containers, texts and numbers, through the attributes of objects.

    The objects between them are few, and what Python takes for one's attributes depends on who came before it.
    """
    seen: set[int] = set()
    waiting, total = [root], 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or callable(item):
            continue
        seen.add(id(item))
        match item:
            case dict():
                waiting += [*item.keys(), *item.values()]
            case list() | tuple() | deque():
                waiting += item
            case str() | float() | int() | None:
                pass
            case _:
                waiting += vars(item).values()
                continue
        total += sys.getsizeof(item)
    return total


def retention_table(held: Sequence[Held]) -> pd.DataFrame:
    """One row a mapping and a number of runs.

    Columns: mapping, cleaned up, runs, routes held, KiB held, bytes a run (all that is held, divided by the runs).
    """
    return pd.DataFrame(
        {
            "mapping": row.mapping,
            "cleaned up": row.cleaned_up,
            "runs": row.runs,
            "routes held": row.routes,
            "KiB held": round(row.held_bytes / 1_024, 1),
            "bytes a run": round(row.held_bytes / row.runs, 1),
        }
        for row in held
    )
