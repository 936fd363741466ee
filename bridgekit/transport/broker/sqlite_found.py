"""What a SQLite file remembers of its threads when it is opened."""

from __future__ import annotations

from typing import Final, NamedTuple

from bridgekit.ids import ThreadId
from bridgekit.storage.sqlite import LOAD_SECONDS, Database
from bridgekit.transport.broker.sqlite_log import Log
from bridgekit.transport.broker.sqlite_trims import Trim

__all__ = ["found_logs", "found_orphans"]

_LOGS: Final = """
  SELECT number, thread_id, epoch, seq, last, used_at,
    (SELECT first FROM events WHERE thread = number ORDER BY seq LIMIT 1),
    (SELECT max(seq) FROM events WHERE thread = number),
    (SELECT at FROM events WHERE thread = number ORDER BY seq DESC LIMIT 1)
  FROM threads
"""
_ORPHANS: Final = """
  WITH RECURSIVE found (number) AS (
    SELECT min(thread) FROM events
    UNION ALL
    SELECT (SELECT min(thread) FROM events WHERE thread > number) FROM found WHERE number IS NOT NULL
  )
  SELECT number,
    (SELECT min(seq) FROM events WHERE thread = number),
    (SELECT max(seq) FROM events WHERE thread = number)
  FROM found WHERE number IS NOT NULL AND number NOT IN (SELECT number FROM threads)
"""


class _Found(NamedTuple):
    number: int
    thread_id: ThreadId
    epoch: str
    seq: int
    last: int
    used_at: float
    oldest: int | None
    latest: int | None
    """Between which numbers its events are."""
    at: float | None
    """When the last event was published."""

    @property
    def in_use(self) -> float:
        return max(self.used_at, self.at or 0.0)

    def log(self) -> Log:
        log = Log(self.thread_id, self.number, self.epoch, max(self.seq, self.latest or 0))
        log.stored = True
        log.last = max(self.last, self.latest or 0)
        if self.oldest is not None and self.latest is not None and self.at is not None:
            log.restore(self.oldest, self.latest, self.at)
        return log


async def found_logs(database: Database) -> list[Log]:
    """Every thread's log, the one that is idle longest first."""
    found = [_Found(*row) for row in await database.read(_LOGS, seconds=LOAD_SECONDS)]
    return [each.log() for each in sorted(found, key=lambda each: each.in_use)]


async def found_orphans(database: Database) -> list[Trim]:
    """Events of threads that were forgotten, when the process ended before they had left."""
    rows = await database.read(_ORPHANS, seconds=LOAD_SECONDS)
    return [Trim(number, first, last, last - first + 1) for number, first, last in rows]
