"""What the pages in docs/ promise is true: their examples run, links lead somewhere, their tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridgekit.chain.link_1_startup import RUNS_TIMEOUT_SECONDS
from bridgekit.events import EventType
from bridgekit.signals import GapReason
from bridgekit.transport import authorization
from bridgekit.transport.connections import DRAIN_TIMEOUT_SECONDS
from bridgekit.transport.log import DEFAULT_RETENTION
from bridgekit.transport.outbox import OUTBOX_LIMITS
from bridgekit.transport.tickets import TICKET_SECONDS
from tests.tree import ROOT, name_of

PAGES = sorted((ROOT / "docs").glob("*.md"))
PRODUCTION = (ROOT / "docs" / "using-the-bridge.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("source", re.findall(r"```python\n(.*?)```", PRODUCTION, re.DOTALL))
def test_example_of_the_production_page_runs(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRIDGEKIT_TICKET_KEY", "k" * 32)
    exec(compile(source, "docs/using-the-bridge.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / path).is_file(), path


def test_every_close_code_stands_on_the_page() -> None:
    codes = {value for name, value in vars(authorization).items() if name.startswith("CLOSE_")}
    assert codes == {int(code) for code in re.findall(r"\b4[05]\d\d\b", PRODUCTION)} - {4_499, 4_999}


def test_every_reason_of_a_gap_stands_on_the_page() -> None:
    assert [reason for reason in GapReason if f"`{reason}`" not in PRODUCTION] == []


def test_what_may_be_coalesced_stands_on_the_page() -> None:
    assert f"`{EventType.AGENT_THINKING}` and `{EventType.PROGRESS_UPDATE}` make room" in PRODUCTION


def test_bounds_on_the_page_are_the_defaults() -> None:
    words = " ".join(PRODUCTION.split())
    mebibytes = DEFAULT_RETENTION.size_bytes // 1_048_576
    assert (
        f"{DEFAULT_RETENTION.events:,} events, {mebibytes} MiB and {DEFAULT_RETENTION.seconds:g} seconds by default"
        in words
    )
    assert f"{DEFAULT_RETENTION.threads:,} threads remembered" in words
    assert f"{OUTBOX_LIMITS.events:,} events and {OUTBOX_LIMITS.size_bytes // 1_048_576} MiB" in words
    assert f"valid for {TICKET_SECONDS:g} seconds" in words
    assert f"`BridgeConfig(runs_seconds=…)`, {RUNS_TIMEOUT_SECONDS:g} by default" in words
    assert f"`drain_seconds`, {DRAIN_TIMEOUT_SECONDS:g} by default" in words
