"""Tickets, and every way in which one can be invalid."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import jwt
import pytest

from bridgekit.chain.models_tools_and_owners import MemoryThreadStore
from bridgekit.errors import InvalidId, StoreUnavailable, SubscriptionRefused
from bridgekit.ids import ThreadId
from bridgekit.transport.authorization import PROTOCOL, TICKET_PROTOCOL, Handshake, Subscription
from bridgekit.transport.tickets import CLOCK_SECONDS, KEY_BYTES, TICKET_BYTES, TICKET_SECONDS, Tickets
from bridgekit.transport.used_tickets import MemoryUsedTickets
from tests.factories import ALICE, BOB, OTHER, THREAD

KEY, OLD_KEY, STRANGERS_KEY = b"k" * KEY_BYTES, b"o" * KEY_BYTES, b"s" * KEY_BYTES


@pytest.fixture
async def threads() -> MemoryThreadStore:
    made = MemoryThreadStore()
    await made.claim(THREAD, ALICE)
    await made.claim(OTHER, BOB)
    return made


@pytest.fixture
def tickets(threads: MemoryThreadStore) -> Tickets:
    return Tickets(threads, MemoryUsedTickets(), keys=[KEY])


def offered(ticket: str, **query: str) -> Handshake:
    return Handshake(query=query, protocols=(PROTOCOL, TICKET_PROTOCOL + ticket))


async def refused(tickets: Tickets, handshake: Handshake) -> tuple[int, str]:
    with pytest.raises(SubscriptionRefused) as refusal:
        await tickets.authorize(handshake)
    return refusal.value.code, refusal.value.reason


def claims(**changes: object) -> dict[str, object]:
    sound = {"aud": "bridgekit", "exp": time.time() + 60, "jti": "1", "sub": ALICE, "thread": THREAD}
    return {name: value for name, value in {**sound, **changes}.items() if value is not None}


def signed(key: bytes = KEY, algorithm: str = "HS256", **changes: object) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm)


def unsigned(header: object, payload: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()

    return f"{part(header)}.{part(payload)}.".replace("=", "")


@pytest.mark.parametrize(
    "brought",
    [
        lambda ticket: Handshake(query={}, protocols=(PROTOCOL, TICKET_PROTOCOL + ticket)),
        lambda ticket: Handshake(query={"thread_id": THREAD, "user_id": ALICE}, protocols=(TICKET_PROTOCOL + ticket,)),
        lambda ticket: Handshake(query={"thread_id": THREAD}, ticket=ticket),
    ],
    ids=["subprotocol", "and what it is for", "first message"],
)
async def test_ticket_opens_the_thread_that_it_is_for(tickets: Tickets, brought: Callable[[str], Handshake]) -> None:
    assert await tickets.authorize(brought(tickets.issue(ALICE, THREAD))) == Subscription(ALICE, THREAD)


async def test_ticket_in_the_query_is_read_only_when_enabled(threads: MemoryThreadStore) -> None:
    off, on = (Tickets(threads, MemoryUsedTickets(), keys=[KEY], in_query=choice) for choice in (False, True))
    handshake = Handshake(query={"ticket": on.issue(ALICE, THREAD)})
    assert [each.awaits_message(handshake) for each in (off, on)] == [True, False]
    assert await refused(off, handshake) == (4501, "no ticket")
    assert await on.authorize(handshake) == Subscription(ALICE, THREAD)


async def test_first_message_is_awaited_when_the_handshake_has_no_ticket(tickets: Tickets) -> None:
    assert tickets.awaits_message(Handshake(query={}))
    assert tickets.awaits_message(Handshake(query={}, protocols=(PROTOCOL,)))
    assert tickets.awaits_message(offered(""))
    assert not tickets.awaits_message(offered("x"))


NO_GOOD = {
    "garbage": lambda: "garbage",
    "two dots": lambda: "..",
    "a text of another alphabet": lambda: "Zürich.Zürich.Zürich",
    "strangers key": lambda: signed(STRANGERS_KEY),
    "no algorithm": lambda: unsigned({"alg": "none", "typ": "JWT"}, claims()),
    "no algorithm, capitals": lambda: unsigned({"alg": "NoNe"}, claims()),
    "another algorithm": lambda: signed(KEY * 2, algorithm="HS512"),
    "no header": lambda: unsigned(None, claims()),
    "a header that is deep": lambda: unsigned(b"[" * 5_000, claims()),
    "a header that is no JSON": lambda: unsigned(b"\xff", claims()),
    "another audience": lambda: signed(aud="billing"),
    "no audience": lambda: signed(aud=None),
    "no expiry": lambda: signed(exp=None),
    "no number": lambda: signed(jti=None),
    "no user": lambda: signed(sub=None),
    "no thread": lambda: signed(thread=None),
    "an expiry that is a text": lambda: signed(exp=str(int(time.time()) + 60)),
    "an expiry that is endless": lambda: signed(exp=float("inf")),
    "a number that is no text": lambda: signed(jti=7),
    "a user id that is not text": lambda: signed(sub=7),
    "an empty user id": lambda: signed(sub=" "),
    "a thread that is no text": lambda: signed(thread=[THREAD]),
    "a thread that is no id": lambda: signed(thread="\x00"),
    "not yet": lambda: signed(nbf=time.time() + 60),
    "issued in the future": lambda: signed(iat=time.time() + CLOCK_SECONDS + 10),
    "issued at no time": lambda: signed(iat="now"),
}


@pytest.mark.parametrize("ticket", NO_GOOD.values(), ids=NO_GOOD)
async def test_invalid_ticket_is_refused_without_details(tickets: Tickets, ticket: Callable[[], str]) -> None:
    code, reason = await refused(tickets, offered(ticket()))
    assert code == 4501
    assert reason in {"the ticket is not valid", "the ticket contains no valid user id or thread id"}


async def test_ticket_that_is_too_long_is_refused(tickets: Tickets) -> None:
    assert await refused(tickets, offered("x" * (TICKET_BYTES + 1))) == (4501, "the ticket is too long")


async def test_signature_of_another_ticket_is_refused(tickets: Tickets) -> None:
    mine, theirs = tickets.issue(ALICE, THREAD), signed(thread=OTHER)
    head, _, signature = mine.split(".")
    forged = f"{head}.{theirs.split('.')[1]}.{signature}"
    assert (await refused(tickets, offered(forged)))[0] == 4501


async def test_expired_ticket_has_its_own_close_code(threads: MemoryThreadStore) -> None:
    tickets = Tickets(threads, MemoryUsedTickets(), keys=[KEY], seconds=-1)
    assert await refused(tickets, offered(tickets.issue(ALICE, THREAD))) == (
        4502,
        "the ticket has expired; request a new one",
    )


async def test_expired_ticket_with_a_foreign_signature_is_invalid(tickets: Tickets) -> None:
    assert (await refused(tickets, offered(signed(STRANGERS_KEY, exp=time.time() - 60))))[0] == 4501


async def test_ticket_opens_one_socket(tickets: Tickets) -> None:
    ticket = tickets.issue(ALICE, THREAD)
    await tickets.authorize(offered(ticket))
    assert (await refused(tickets, offered(ticket)))[0] == 4505


async def test_ticket_presented_concurrently_opens_one_socket(tickets: Tickets) -> None:
    ticket, codes = tickets.issue(ALICE, THREAD), list[int]()

    async def try_it() -> None:
        try:
            await tickets.authorize(offered(ticket))
            codes.append(0)
        except SubscriptionRefused as refusal:
            codes.append(refusal.code)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(try_it)
    assert sorted(codes) == [0] + [4505] * 19


@pytest.mark.parametrize("query", [{"thread_id": OTHER}, {"thread_id": ""}, {"user_id": BOB}])
async def test_query_must_match_the_ticket(tickets: Tickets, query: dict[str, str]) -> None:
    ticket = tickets.issue(ALICE, THREAD)
    assert (await refused(tickets, offered(ticket, **query)))[0] == 4503
    assert await tickets.authorize(offered(ticket)) == Subscription(ALICE, THREAD)


@pytest.mark.parametrize("thread", [OTHER, "thread_nobody"])
async def test_ticket_for_a_thread_that_changed_its_owner_is_refused(tickets: Tickets, thread: str) -> None:
    """The thread was reassigned or deleted after the ticket was issued."""
    ticket = tickets.issue(ALICE, thread)
    assert await refused(tickets, offered(ticket)) == (4503, "no such thread of this user")


async def test_ticket_refused_for_another_reason_stays_usable(threads: MemoryThreadStore) -> None:
    tickets = Tickets(threads, MemoryUsedTickets(), keys=[KEY])
    ticket = tickets.issue(ALICE, "thread_new")
    assert (await refused(tickets, offered(ticket)))[0] == 4503
    await threads.claim(ThreadId("thread_new"), ALICE)
    assert (await tickets.authorize(offered(ticket))).thread_id == "thread_new"


async def test_key_can_be_rotated_while_tickets_are_in_use(threads: MemoryThreadStore) -> None:
    used_tickets = MemoryUsedTickets()
    before, during, after = (Tickets(threads, used_tickets, keys=keys) for keys in ([OLD_KEY], [KEY, OLD_KEY], [KEY]))
    old = before.issue(ALICE, THREAD)
    assert (await during.authorize(offered(old))).user_id == ALICE
    assert (await refused(after, offered(old)))[0] == 4501
    assert (await after.authorize(offered(during.issue(ALICE, THREAD)))).user_id == ALICE


async def test_generated_key_is_unknown_to_other_workers(threads: MemoryThreadStore) -> None:
    one, other = Tickets(threads, MemoryUsedTickets()), Tickets(threads, MemoryUsedTickets())
    assert (one.has_random_key, Tickets(threads, MemoryUsedTickets(), keys=[KEY]).has_random_key) == (True, False)
    assert (await refused(other, offered(one.issue(ALICE, THREAD))))[0] == 4501


@pytest.mark.parametrize("keys", [[b"short"], [KEY, b"short"]])
async def test_key_that_is_too_short_is_refused(threads: MemoryThreadStore, keys: list[bytes]) -> None:
    with pytest.raises(InvalidId, match=r"at least 32 bytes, not 5; generate one with secrets\.token_bytes"):
        Tickets(threads, MemoryUsedTickets(), keys=keys)


@pytest.mark.parametrize("keys", [KEY, KEY.decode(), [KEY.decode()], [KEY, None], [bytearray(KEY)]])
async def test_key_that_is_not_bytes_is_refused_and_not_shown(threads: MemoryThreadStore, keys: Any) -> None:
    with pytest.raises(InvalidId, match=r"keys: must be a sequence of bytes") as refused:
        Tickets(threads, MemoryUsedTickets(), keys=keys)
    assert KEY.decode() not in str(refused.value)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, "60", None, True])
async def test_lifetime_with_which_no_ticket_is_valid_is_refused(threads: MemoryThreadStore, seconds: Any) -> None:
    with pytest.raises(InvalidId, match=r"seconds: must be a finite number"):
        Tickets(threads, MemoryUsedTickets(), seconds=seconds)


@pytest.mark.parametrize(("user", "thread"), [("", THREAD), (ALICE, "\x00")])
async def test_ticket_for_a_malformed_id_is_not_issued(tickets: Tickets, user: str, thread: str) -> None:
    with pytest.raises(InvalidId):
        tickets.issue(user, thread)


async def test_ticket_is_refused_when_the_store_is_unavailable(threads: MemoryThreadStore) -> None:
    class Away:
        generation = ""

        async def mark_used(self, ticket_id: str, seconds: float) -> bool:
            raise StoreUnavailable("redis", "no answer")

    tickets = Tickets(threads, Away(), keys=[KEY])
    with pytest.raises(StoreUnavailable):
        await tickets.authorize(offered(tickets.issue(ALICE, THREAD)))


async def test_ticket_is_refused_when_the_used_tickets_were_lost(threads: MemoryThreadStore) -> None:
    """A restart with the same key, for example: the ticket may have been used before."""
    before, after = (Tickets(threads, MemoryUsedTickets(), keys=[KEY]) for _ in range(2))
    for ticket in (used := before.issue(ALICE, THREAD), before.issue(ALICE, THREAD)):
        if ticket == used:
            await before.authorize(offered(ticket))
        assert await refused(after, offered(ticket)) == (
            4502, "used tickets were lost since the ticket was issued; request a new one"
        )  # fmt: skip
    assert (await after.authorize(offered(after.issue(ALICE, THREAD)))).user_id == ALICE


async def test_ticket_of_an_issuer_that_has_only_the_key_is_accepted_once(threads: MemoryThreadStore) -> None:
    issuer = Tickets(threads, MemoryUsedTickets(generation=""), keys=[KEY])
    tickets = Tickets(threads, MemoryUsedTickets(), keys=[KEY])
    ticket = issuer.issue(ALICE, THREAD)
    assert (await tickets.authorize(offered(ticket))).user_id == ALICE
    assert (await refused(tickets, offered(ticket)))[0] == 4505


async def test_used_tickets_are_forgotten_when_they_have_expired() -> None:
    now = 0.0
    used_tickets = MemoryUsedTickets(clock=lambda: now)
    assert [await used_tickets.mark_used(each, 60) for each in "aab"] == [True, False, True]
    now = 59.0
    assert [await used_tickets.mark_used(each, 60) for each in "abc"] == [False, False, True]
    now = 60.0
    assert [await used_tickets.mark_used(each, 60) for each in "ca"] == [False, True]
    assert len(used_tickets) == 2


async def test_repr_of_a_handshake_hides_the_ticket(tickets: Tickets) -> None:
    ticket = tickets.issue(ALICE, THREAD)
    shown: list[Any] = [
        offered(ticket),
        Handshake(query={"ticket": ticket}),
        Handshake(query={}, ticket=ticket),
    ]
    assert not [each for each in shown if ticket in repr(each)]


@pytest.mark.parametrize("ahead", [-CLOCK_SECONDS, 0.0, CLOCK_SECONDS])
async def test_used_ticket_is_remembered_until_it_has_expired_by_every_workers_clock(
    ahead: float, threads: MemoryThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that gets the ticket first may have a clock that is ahead of that of the next one."""
    now = 0.0
    tickets = Tickets(threads, MemoryUsedTickets(clock=lambda: now), keys=[KEY])
    handshake = offered(tickets.issue(ALICE, THREAD))
    with monkeypatch.context() as patch:
        patch.setattr("bridgekit.transport.tickets.time", SimpleNamespace(time=lambda: time.time() + ahead))
        await tickets.authorize(handshake)
    now = TICKET_SECONDS - 1  # by the clock of this worker, the ticket is still valid
    assert await refused(tickets, handshake) == (4505, "the ticket was used before; request a new one")


async def test_ticket_is_valid_if_the_issuer_has_a_clock_that_is_ahead(tickets: Tickets) -> None:
    ticket = signed(iat=time.time() + CLOCK_SECONDS - 10)
    assert await tickets.authorize(offered(ticket)) == Subscription(ALICE, THREAD)
