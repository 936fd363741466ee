"""What is served: found by its name, put together with what was asked for, or refused in words of use."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from bridgekit.chain.link_1_startup import Application, Parts
from bridgekit.errors import ServeError, UnknownName
from bridgekit.serve.application import Served, lacks_lifespan
from bridgekit.serve.keys import KEY_VARIABLE
from bridgekit.stores import MEMORY, memory_stores
from bridgekit.transport.admission import Handshake, OwnersOnly
from bridgekit.transport.edge import Edge
from bridgekit.transport.tickets import Tickets
from tests.samples import ALICE, THREAD

HERE = "tests.serve.test_application"
KEY = "a key that is thirty-two characters long"

plain = Parts(agents={})
kept = Parts(agents={}, stores=memory_stores())
owners_only = Parts(agents={}, admission=OwnersOnly)
two_sites = Parts(agents={}, origins=("https://one.example",))
number = 1
without_bridge = Starlette()


class Rooms:
    """Something with attributes of its own."""

    parts = plain


def made() -> Parts:
    return plain


async def made_later() -> Parts:
    return plain


def made_wrong() -> int:
    return 1


def put_together() -> Starlette:
    return without_bridge


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


async def started(served: Served) -> tuple[Application, Edge]:
    app = served()
    assert isinstance(app, Starlette)
    async with app.router.lifespan_context(app):
        return app.state.bridgekit, app.state.bridgekit_edge


@pytest.mark.parametrize("name", ["plain", "made", "Rooms.parts"])
async def test_parts_and_a_function_that_returns_them_become_an_application(name: str) -> None:
    app = Served(target=f"{HERE}:{name}")()
    assert isinstance(app, Starlette)
    assert {route.path for route in app.routes if isinstance(route, Route)} >= {"/healthz", "/metrics"}
    application, _ = await started(Served(target=f"{HERE}:{name}"))
    assert application.parts == plain


@pytest.mark.parametrize("name", ["without_bridge", "put_together"])
def test_application_that_is_put_together_is_taken_as_it_is(name: str) -> None:
    assert Served(target=f"{HERE}:{name}")() is without_bridge


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere:app", "there is no module 'nowhere', seen from /"),
        ("tests.nowhere:app", "there is no module 'tests.nowhere'"),
        ("tests.serve.needy:app", "it needs the module 'no_such_package', which is not installed"),
        (f"{HERE}:nothing", f"'{HERE}' has no 'nothing'"),
        (f"{HERE}:Rooms.nothing", "has no 'Rooms.nothing'"),
        (HERE, "say MODULE:ATTRIBUTE, which names your Parts, a function that returns them, or an ASGI"),
        (":plain", "say MODULE:ATTRIBUTE"),
        (f"{HERE}:number", "it is of type int; needed is your Parts, a function"),
        (f"{HERE}:made_wrong", "it is of type int"),
        (f"{HERE}:made_later", "its function is asynchronous; needed is your Parts"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_name(target: str, says: str) -> None:
    with pytest.raises(ServeError) as refusal:
        Served(target=target)()
    assert says in str(refusal.value)
    assert refusal.value.what == target


def test_mistake_in_somebodys_own_module_comes_through_with_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        Served(target="tests.serve.mistaken:app")()


async def test_choices_of_the_command_are_the_parts() -> None:
    application, _ = await started(
        Served(
            target=f"{HERE}:two_sites",
            store="memory:",
            origins=("https://two.example",),
            runs_seconds=1.5,
            drain_seconds=2.5,
        )
    )
    parts = application.parts
    assert parts.origins == ("https://one.example", "https://two.example")
    assert (parts.runs_seconds, parts.drain_seconds) == (1.5, 2.5)
    assert parts.stores is not MEMORY


async def test_key_of_the_environment_signs_and_so_does_the_key_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(KEY[::-1])
    file.chmod(0o600)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    for key_file, key in ((None, KEY), (file, KEY[::-1])):
        application, _ = await started(Served(target=f"{HERE}:plain", key_file=key_file))
        await application.open_thread(THREAD, ALICE)
        other = Tickets(application, application.stores.spent, keys=(key.encode(),))
        asked = Handshake(query={}, ticket=other.issue(ALICE, THREAD))
        assert (await application.admission.admit(asked)).user_id == ALICE


async def test_parts_that_say_who_is_let_in_keep_their_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    application, _ = await started(Served(target=f"{HERE}:owners_only"))
    assert application.parts.admission is OwnersOnly
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    with pytest.raises(ServeError, match="its Parts say who is let in; leave out --ticket-key-file"):
        Served(target=f"{HERE}:owners_only", key_file=file)()


@pytest.mark.parametrize(
    ("served", "named"),
    [
        (Served(target=f"{HERE}:without_bridge", store="memory:"), "--store and BRIDGEKIT_STORE"),
        (Served(target=f"{HERE}:without_bridge", key_file=Path("key")), "--ticket-key-file"),
        (Served(target=f"{HERE}:without_bridge", origins=("https://a.example",)), "--origin"),
        (
            Served(target=f"{HERE}:without_bridge", runs_seconds=1.0, drain_seconds=1.0),
            "--runs-seconds, --drain-seconds",
        ),
    ],
)
def test_application_that_is_put_together_takes_no_choices(served: Served, named: str) -> None:
    with pytest.raises(ServeError, match=f"was put together already; leave out {named}$"):
        served()


def test_unknown_store_is_refused() -> None:
    with pytest.raises(UnknownName, match="no store is called 'mongo'"):
        Served(target=f"{HERE}:plain", store="mongo://here")()


def test_shared_store_needs_a_shared_key() -> None:
    served = Served(target=f"{HERE}:plain", store="redis://127.0.0.1:1")
    with pytest.raises(
        ServeError, match=f"must share a key for tickets: give --ticket-key-file FILE, or {KEY_VARIABLE}"
    ):
        served()
    Served(target=f"{HERE}:owners_only", store="redis://127.0.0.1:1")()


@pytest.mark.parametrize(
    ("name", "store", "called"),
    [("plain", None, "memory"), ("plain", "memory:", "memory"), ("kept", "sqlite:///events", "sqlite")],
)
def test_store_for_one_is_refused_for_two(name: str, store: str | None, called: str) -> None:
    served = Served(target=f"{HERE}:{name}", store=store)
    served.checked(1)
    with pytest.raises(ServeError) as refusal:
        served.checked(2)
    assert f"its {called} store serves one worker, not 2" in str(refusal.value)
    assert "start one, or give --store redis://HOST:PORT" in str(refusal.value)


def test_shared_store_and_whatever_says_for_itself_later_are_taken_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    Served(target=f"{HERE}:plain", store="redis://127.0.0.1:1").checked(2)
    Served(target=f"{HERE}:without_bridge").checked(2)
    Served(target=f"{HERE}:kept").checked(2)


def test_what_is_served_can_be_sent_to_a_worker() -> None:
    served = Served(target=f"{HERE}:plain", store="memory:", key_file=Path("key"))
    assert pickle.loads(pickle.dumps(served)) == served


def test_application_without_a_bridge_is_known_by_its_state() -> None:
    assert lacks_lifespan(Starlette())
    app = Starlette()
    app.state.bridgekit = "here"
    assert not lacks_lifespan(app)


def test_application_of_another_kind_is_not_judged() -> None:
    async def app(*_: object) -> None:
        return None

    assert not lacks_lifespan(app)
