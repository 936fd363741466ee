"""A socket that resumes: every event since its cursor, or a gap. On both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridgekit.transport.log import MemoryEventLog, Retention
from tests.factories import ALICE, OTHER, THREAD
from tests.transport.fake_browser import Browser, Site

FOREIGN = "f" * 16


@asynccontextmanager
async def made(retention: Retention | None = None, *, log: MemoryEventLog | None = None) -> AsyncIterator[Site]:
    site = Site(retention or Retention(), log=log)
    await site.open_threads()
    async with site.edge:
        yield site


async def read(site: Site, browser: Browser, *, then: int = 1) -> Browser:
    """Return what the browser reads when this many events are published after it is subscribed."""
    async with site.open(browser):
        await site.publish(then)
    return browser


async def test_resuming_socket_gets_past_and_new_events_once_and_in_order(site: Site) -> None:
    [*_, seen] = await site.publish(3)
    await site.publish(4)
    browser = await read(site, site.resuming(seen), then=3)
    assert (browser.confirmation["epoch"], browser.confirmation["seq"]) == (seen.epoch, 3)
    assert (browser.seqs, browser.gaps) == ([4, 5, 6, 7, 8, 9, 10], [])
    assert site.counters.subscriptions == {"resumed": 1}


async def test_socket_at_the_logs_end_gets_no_gap(site: Site) -> None:
    [*_, seen] = await site.publish(3)
    browser = await read(site, site.resuming(seen))
    assert (browser.confirmation["seq"], browser.seqs, browser.gaps) == (3, [4], [])


async def test_cursor_before_the_first_event_gets_all_events(site: Site) -> None:
    async with site.visited((ALICE, THREAD)) as [first]:
        pass
    await site.publish(3)
    browser = await read(site, site.browser(epoch=first.confirmation["epoch"], seq="0"))
    assert browser.seqs == [1, 2, 3, 4]


async def test_retained_events_are_replayed_and_one_more_gives_only_a_gap() -> None:
    async with made(Retention(events=5)) as site:
        [*_, seen] = await site.publish(3)
        await site.publish(5)
        whole = await read(site, site.resuming(seen))
        assert (whole.seqs, whole.gaps) == ([4, 5, 6, 7, 8, 9], [])
        gone = await read(site, site.resuming(seen))
        assert (gone.confirmation["seq"], gone.gaps, gone.seqs) == (9, [(4, 9, "expired")], [10])
        assert [frame["type"] for frame in gone.frames] == ["gap", "agent_thinking"]
        assert gone.frames[0]["epoch"] == seen.epoch
        assert site.counters.subscriptions == {"resumed": 1, "gap": 1}
        assert site.counters.gaps == {"expired": 1}


async def test_events_over_the_byte_limit_give_a_gap() -> None:
    async with made(Retention(size_bytes=1_000)) as site:
        [seen] = await site.publish()
        await site.publish(10)
        browser = await read(site, site.resuming(seen))
        assert (browser.gaps, browser.seqs) == ([(2, 11, "expired")], [12])


async def test_expired_events_give_a_gap() -> None:
    now = 0.0
    async with made(log=MemoryEventLog(Retention(seconds=60), clock=lambda: now)) as site:
        [seen] = await site.publish()
        await site.publish(2)
        now = 60.0
        assert (await read(site, site.resuming(seen))).seqs == [2, 3, 4]
        now = 60.1
        assert (await read(site, site.resuming(seen))).gaps == [(2, 4, "expired")]


async def test_retention_of_zero_gives_a_gap() -> None:
    async with made(Retention(events=0)) as site:
        [seen] = await site.publish()
        assert (await read(site, site.resuming(seen))).gaps == []
        browser = await read(site, site.resuming(seen))
        assert (browser.gaps, browser.seqs) == ([(2, 2, "expired")], [3])


async def test_cursor_of_a_lost_epoch_gets_a_gap_and_all_of_the_new_epoch(site: Site) -> None:
    await site.publish(2)
    browser = await read(site, site.browser(epoch=FOREIGN, seq="7"))
    assert browser.frames[0] == {
        "type": "gap", "thread_id": THREAD, "epoch": FOREIGN, "from": 8, "to": None, "reason": "restarted"
    }  # fmt: skip
    assert (browser.confirmation["seq"], browser.seqs) == (0, [1, 2, 3])


async def test_partly_retained_new_epoch_gives_a_second_gap() -> None:
    async with made(Retention(events=2)) as site:
        [*_, last] = await site.publish(5)
        browser = await read(site, site.browser(epoch=FOREIGN, seq="7"))
        assert (browser.confirmation["epoch"], browser.confirmation["seq"]) == (last.epoch, 3)
        assert browser.gaps == [(8, None, "restarted"), (1, 3, "expired")]
        assert [frame["epoch"] for frame in browser.frames[:2]] == [FOREIGN, last.epoch]
        assert browser.seqs == [4, 5, 6]
        assert site.counters.gaps == {"restarted": 1, "expired": 1}


async def test_cursor_of_another_thread_gets_none_of_its_events(site: Site) -> None:
    """A guessed or stolen cursor reveals nothing: its epoch is not of this thread."""
    [stolen] = await site.publish(1, OTHER)
    await site.publish(3, OTHER)
    await site.publish(2)
    browser = await read(site, site.browser(epoch=str(stolen.epoch), seq="1"))
    assert browser.gaps == [(2, None, "restarted")]
    assert browser.seqs == [1, 2, 3]
    assert {frame["thread_id"] for frame in browser.frames} == {THREAD}
    assert browser.confirmation["epoch"] != stolen.epoch


@pytest.mark.parametrize("seq", [4, 10**17, 10**18 - 1])
async def test_cursor_ahead_of_the_log_gets_a_restarted_gap(site: Site, seq: int) -> None:
    [*_, last] = await site.publish(3)
    browser = await read(site, site.resuming(last, seq=seq))
    assert browser.gaps == [(seq + 1, None, "restarted")]
    assert browser.seqs == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"epoch": FOREIGN}, "seq"),
        ({"seq": "1"}, "epoch"),
        ({"epoch": "", "seq": ""}, "epoch"),
        ({"epoch": FOREIGN, "seq": "-1"}, "seq"),
        ({"epoch": FOREIGN, "seq": "9" * 19}, "seq"),
        ({"epoch": FOREIGN, "seq": "9" * 5_000}, "seq"),
        ({"epoch": FOREIGN, "seq": "one"}, "seq"),
        ({"epoch": FOREIGN, "seq": "\N{ARABIC-INDIC DIGIT ONE}"}, "seq"),
        ({"epoch": "x" * 16, "seq": "1"}, "epoch"),
        ({"epoch": FOREIGN + "\x00", "seq": "1"}, "epoch"),
    ],
    ids=lambda each: str(each)[:40],
)
async def test_malformed_cursor_gets_a_terminal_close_code(site: Site, query: dict[str, str], field: str) -> None:
    browser = site.browser(ALICE, THREAD, **query)
    await browser.run()
    assert browser.close is not None
    assert browser.close[0] == 4500
    assert browser.close[1].startswith(f"{field}: ")
    assert len(browser.messages) == 2
