"""Where a thread, a run and a ticket are kept, and in which part of a Cluster."""

from __future__ import annotations

import pytest

from bridgekit.errors import InvalidId
from bridgekit.ids import RunId, ThreadId
from bridgekit.storage.redis import Servers
from bridgekit.storage.redis_library import Names, slot_of
from tests.samples import RUN


def test_all_keys_of_a_thread_are_in_one_slot_whatever_its_id() -> None:
    names = Names("app")
    for thread in ("thread_123", "}{", "", "x" * 1_024, "{a}b{c}"):
        keys = names.thread(ThreadId(thread))
        tags = [key.partition(b"{")[2].partition(b"}")[0] for key in (keys.log, keys.head)]
        assert tags[0] == tags[1]
        assert slot_of(tags[0]) == keys.slot


def test_slots_are_those_of_the_cluster_specification() -> None:
    """The specification's own example: CRC16 of "123456789" is 31C3 (hexadecimal)."""
    assert slot_of(b"123456789") == 0x31C3 % 16_384


def test_no_two_of_threads_runs_tickets_and_applications_share_a_key() -> None:
    keys = [
        *(Names("a").thread(ThreadId("x"))[:2]),
        Names("b").thread(ThreadId("x")).log,
        Names("a").thread(ThreadId("y")).log,
        Names("a").route(RunId("x"))[0],
        Names("a").ticket("x")[0],
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("prefix", ["app{1}", "app\r\n"])
def test_prefix_that_would_put_all_keys_into_one_slot_or_end_a_channels_name_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidId, match="prefix"):
        Names(prefix)


async def test_server_computes_the_same_slots(servers: Servers) -> None:
    assert await servers.call(0, b"CLUSTER KEYSLOT", b"{" + RUN.encode() + b"}") == slot_of(RUN.encode())
