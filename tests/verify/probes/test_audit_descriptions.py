"""The audit's description of each link, tested word for word."""

from __future__ import annotations

import pytest

from bridgekit_verify.probes.audit_descriptions import check_wording
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, BROKEN, SOUND

LINKS = range(1, 10)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # required by uvicorn


async def test_descriptions_of_the_code_as_committed_are_true_except_those_of_links_3_and_8() -> None:
    held = {link: (await check_wording(link, AS_COMMITTED)).holds for link in LINKS}
    assert [link for link, holds in held.items() if not holds] == [3, 8]


async def test_descriptions_of_the_chain_as_reported_are_all_true() -> None:
    assert [link for link in LINKS if not (await check_wording(link, AS_REPORTED)).holds] == []


async def test_description_of_the_broken_routing_is_not_true_of_the_sound_chain() -> None:
    assert [link for link in LINKS if not (await check_wording(link, SOUND)).holds] == [9]


@pytest.mark.parametrize("link", [3, 4, 6, 7, 8])
async def test_a_link_that_does_not_do_what_the_audit_describes_is_found(link: int) -> None:
    assert not (await check_wording(link, BROKEN[link])).holds


@pytest.mark.parametrize("link", [1, 5])
async def test_a_description_can_be_true_of_a_link_that_fails(link: int) -> None:
    assert (await check_wording(link, BROKEN[link])).holds
