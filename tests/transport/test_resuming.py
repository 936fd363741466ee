"""A socket that was here before: everything since, or the truth about it. On both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridgekit.transport.log import MemoryEventLog, Retention
from tests.factories import ALICE, OTHER, THREAD
from tests.transport.fake_browser import Browser, Site

FOREIGN = "f" * 16


@asynccontextmanager
async def made(keep: Retention | None = None, *, broker: MemoryEventLog | None = None) -> AsyncIterator[Site]:
    site = Site(keep or Retention(), broker=broker)
    await site.open_threads()
    async with site.edge:
        yield site


async def read(site: Site, browser: Browser, *, then: int = 1) -> Browser:
    """What it reads, with so many events after it was subscribed."""
    async with site.open(browser):
        await site.publish(then)
    return browser


async def test_everything_since_its_cursor_and_everything_to_come_is_read_once_and_in_order(site: Site) -> None:
    [*_, seen] = await site.publish(3)
    await site.publish(4)
    browser = await read(site, site.resuming(seen), then=3)
    assert (browser.confirmation["epoch"], browser.confirmation["seq"]) == (seen.epoch, 3)
    assert (browser.seqs, browser.gaps) == ([4, 5, 6, 7, 8, 9, 10], [])
    assert site.counters.subscriptions == {"resumed": 1}


async def test_nothing_missed_is_nothing_told(site: Site) -> None:
    [*_, seen] = await site.publish(3)
    browser = await read(site, site.resuming(seen))
    assert (browser.confirmation["seq"], browser.seqs, browser.gaps) == (3, [4], [])


async def test_cursor_from_before_the_first_event_is_given_all_of_them(site: Site) -> None:
    async with site.visited((ALICE, THREAD)) as [first]:
        pass
    await site.publish(3)
    browser = await read(site, site.browser(epoch=first.confirmation["epoch"], seq="0"))
    assert browser.seqs == [1, 2, 3, 4]


async def test_as_many_events_as_are_kept_are_resumed_and_one_more_is_a_gap_and_nothing_else() -> None:
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


async def test_bound_of_bytes_is_told_as_the_bound_of_events_is() -> None:
    async with made(Retention(size_bytes=1_000)) as site:
        [seen] = await site.publish()
        await site.publish(10)
        browser = await read(site, site.resuming(seen))
        assert (browser.gaps, browser.seqs) == ([(2, 11, "expired")], [12])


async def test_events_that_grew_too_old_are_told_as_a_gap() -> None:
    now = 0.0
    async with made(broker=MemoryEventLog(Retention(seconds=60), clock=lambda: now)) as site:
        [seen] = await site.publish()
        await site.publish(2)
        now = 60.0
        assert (await read(site, site.resuming(seen))).seqs == [2, 3, 4]
        now = 60.1
        assert (await read(site, site.resuming(seen))).gaps == [(2, 4, "expired")]


async def test_nothing_is_kept_where_nothing_is_to_be_kept_and_that_is_told() -> None:
    async with made(Retention(events=0)) as site:
        [seen] = await site.publish()
        assert (await read(site, site.resuming(seen))).gaps == []
        browser = await read(site, site.resuming(seen))
        assert (browser.gaps, browser.seqs) == ([(2, 2, "expired")], [3])


async def test_cursor_of_a_numbering_that_is_gone_is_told_so_and_given_all_of_the_new_one(site: Site) -> None:
    await site.publish(2)
    browser = await read(site, site.browser(epoch=FOREIGN, seq="7"))
    assert browser.frames[0] == {
        "type": "gap", "thread_id": THREAD, "epoch": FOREIGN, "from": 8, "to": None, "reason": "restarted"
    }  # fmt: skip
    assert (browser.confirmation["seq"], browser.seqs) == (0, [1, 2, 3])


async def test_new_numbering_that_is_not_all_held_any_more_is_a_second_gap() -> None:
    async with made(Retention(events=2)) as site:
        [*_, last] = await site.publish(5)
        browser = await read(site, site.browser(epoch=FOREIGN, seq="7"))
        assert (browser.confirmation["epoch"], browser.confirmation["seq"]) == (last.epoch, 3)
        assert browser.gaps == [(8, None, "restarted"), (1, 3, "expired")]
        assert [frame["epoch"] for frame in browser.frames[:2]] == [FOREIGN, last.epoch]
        assert browser.seqs == [4, 5, 6]
        assert site.counters.gaps == {"restarted": 1, "expired": 1}


async def test_cursor_of_another_thread_is_given_nothing_of_that_thread(site: Site) -> None:
    """Guessed or stolen, it opens nothing: it is of a numbering that this thread never had."""
    [stolen] = await site.publish(1, OTHER)
    await site.publish(3, OTHER)
    await site.publish(2)
    browser = await read(site, site.browser(epoch=str(stolen.epoch), seq="1"))
    assert browser.gaps == [(2, None, "restarted")]
    assert browser.seqs == [1, 2, 3]
    assert {frame["thread_id"] for frame in browser.frames} == {THREAD}
    assert browser.confirmation["epoch"] != stolen.epoch


@pytest.mark.parametrize("seq", [4, 10**17, 10**18 - 1])
async def test_cursor_from_ahead_of_the_log_is_told_that_numbering_began_anew(site: Site, seq: int) -> None:
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
async def test_what_is_no_cursor_is_refused_by_a_terminal_code(site: Site, query: dict[str, str], field: str) -> None:
    browser = site.browser(ALICE, THREAD, **query)
    await browser.stay()
    assert browser.close is not None
    assert browser.close[0] == 4500
    assert browser.close[1].startswith(f"{field}: ")
    assert len(browser.messages) == 2
