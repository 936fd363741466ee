"""A full disk with the operating system's own error: events are refused, and publishing continues when there is
room."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bridgekit_verify.harness.processes import start_process


@pytest.mark.slow
async def test_full_disk_refuses_events_and_publishing_continues_when_there_is_room(
    tmp_path: Path, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    command = [sys.executable, "-m", "tests.stores.sqlite.full_disk", str(tmp_path / "store.db"), anyio_backend[0]]
    async with start_process(command) as publishing:
        printed = json.loads(await publishing.line())
        assert await publishing.wait() == 0
    assert printed["before"] == printed["after"] == ["sent"] * 3
    assert set(printed["meanwhile"]) == {"sent", "refused"}
    assert printed["meanwhile"][-1] == "refused"
    assert printed["healthy"] == [False, True]
    assert printed["reasons"] == ["the SQLite store: database or disk is full"] or printed["reasons"] == [
        "the SQLite store: disk I/O error"
    ]
    assert printed["links"] == [10]
    assert printed["last"] == 36
    kept = [seq for seq in range(1, 37) if seq not in printed["refused"]]
    assert printed["received"] == kept
    assert printed["replayed"] == printed["again"] == [kept, None]
