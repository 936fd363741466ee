"""Loading the application: found by name, changed by options, or refused with a message that says what to do."""

from __future__ import annotations

import os
import pickle
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from bridgekit.__main__ import main
from bridgekit.chain.link_1_startup import Application, BridgeConfig
from bridgekit.errors import DeterministicStartupError, ServeError, UnknownName
from bridgekit.serve.app_loader import KEY_VARIABLE, STORE_VARIABLE, AppSpec, check_private, read_ticket_keys
from bridgekit.stores import MEMORY, StoreFactory, memory_stores, redis_stores, sqlite_stores
from bridgekit.transport.authorization import Handshake, OwnerAuthorizer
from bridgekit.transport.connections import ConnectionRegistry
from bridgekit.transport.log import Retention
from bridgekit.transport.tickets import Tickets
from tests.factories import ALICE, THREAD

HERE = "tests.serve.test_app_loader"
KEY = "a key that is thirty-two characters long"

plain = BridgeConfig(agents={})
kept = BridgeConfig(agents={}, stores=memory_stores())
chosen = BridgeConfig(agents={}, stores=memory_stores(Retention(events=5)))
owners_only = BridgeConfig(agents={}, authorizer=OwnerAuthorizer)
two_sites = BridgeConfig(agents={}, origins=("https://one.example",))
number = 1
without_bridge = Starlette()


class Rooms:
    """A namespace with BridgeConfig as an attribute."""

    config = plain


def made() -> BridgeConfig:
    return plain


async def made_later() -> BridgeConfig:
    return plain


def made_wrong() -> int:
    return 1


def put_together() -> Starlette:
    return without_bridge


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(STORE_VARIABLE, raising=False)


async def started(served: AppSpec) -> tuple[Application, ConnectionRegistry]:
    app = served.load()
    assert isinstance(app, Starlette)
    async with app.router.lifespan_context(app):
        return app.state.bridgekit, app.state.bridgekit_connections


@pytest.mark.parametrize("name", ["plain", "made", "Rooms.config"])
async def test_config_and_a_function_that_returns_one_become_an_application(name: str) -> None:
    app = AppSpec(target=f"{HERE}:{name}").load()
    assert isinstance(app, Starlette)
    assert {route.path for route in app.routes if isinstance(route, Route)} >= {"/healthz", "/metrics"}
    application, _ = await started(AppSpec(target=f"{HERE}:{name}"))
    assert application.config == plain


@pytest.mark.parametrize("name", ["without_bridge", "put_together"])
def test_application_is_served_unchanged(name: str) -> None:
    assert AppSpec(target=f"{HERE}:{name}").load() is without_bridge


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("nowhere:app", "there is no module 'nowhere' in /"),
        ("tests.nowhere:app", "there is no module 'tests.nowhere'"),
        ("tests.serve.needy:app", "it needs the module 'no_such_package', which is not installed"),
        (f"{HERE}:nothing", f"'{HERE}' has no 'nothing'"),
        (f"{HERE}:Rooms.nothing", "has no 'Rooms.nothing'"),
        (HERE, "give MODULE:ATTRIBUTE, which names a BridgeConfig, a function that returns one, or an ASGI"),
        (":plain", "give MODULE:ATTRIBUTE"),
        (".serve.test_application:plain", "give MODULE:ATTRIBUTE"),
        (f"{HERE}:number", "it is of type int; expected a BridgeConfig, a function"),
        (f"{HERE}:made_wrong", "it is of type int"),
        (f"{HERE}:made_later", "it is an asynchronous function; expected a BridgeConfig"),
    ],
)
def test_target_that_cannot_be_served_is_named(target: str, expected: str) -> None:
    with pytest.raises(ServeError) as refusal:
        AppSpec(target=target).load()
    assert expected in str(refusal.value)
    assert refusal.value.what == target


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 / 0", "its import raised ZeroDivisionError: division by zero ({file}, line 1)"),
        ("def f(:", "its import raised SyntaxError: invalid syntax (broken.py, line 1)"),
        ("from json import nothing", "its import raised ImportError: cannot import name 'nothing' from 'json'"),
        ("raise SystemExit('set DATABASE')", "its import raised SystemExit: set DATABASE ({file}, line 1)"),
        ("def app():\n    raise OSError('no database')", "it raised OSError: no database ({file}, line 2)"),
    ],
)
def test_error_of_the_applications_own_code_is_one_line_with_its_place(
    source: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    assert main(["serve", "broken:app", "--port", "0"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bridgekit: broken:app: {expected.format(file=file)}")


async def test_command_line_options_change_the_config() -> None:
    application, _ = await started(
        AppSpec(
            target=f"{HERE}:two_sites",
            store="memory:",
            origins=("https://two.example",),
            runs_seconds=1.5,
            drain_seconds=2.5,
        )
    )
    config = application.config
    assert config.origins == ("https://one.example", "https://two.example")
    assert (config.runs_seconds, config.drain_seconds) == (1.5, 2.5)
    assert config.stores is not MEMORY


async def test_key_from_the_environment_or_a_file_signs_tickets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(KEY[::-1])
    file.chmod(0o600)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    for key_file, key in ((None, KEY), (file, KEY[::-1])):
        application, _ = await started(AppSpec(target=f"{HERE}:plain", key_file=key_file))
        await application.open_thread(THREAD, ALICE)
        other = Tickets(application, application.stores.used_tickets, keys=(key.encode(),))
        handshake = Handshake(query={}, ticket=other.issue(ALICE, THREAD))
        assert (await application.authorizer.authorize(handshake)).user_id == ALICE


async def test_config_with_its_own_authorizer_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    application, _ = await started(AppSpec(target=f"{HERE}:owners_only"))
    assert application.config.authorizer is OwnerAuthorizer
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    with pytest.raises(ServeError, match="its BridgeConfig has its own authorizer; leave out --ticket-key-file"):
        AppSpec(target=f"{HERE}:owners_only", key_file=file).load()


@pytest.mark.parametrize(
    ("served", "named"),
    [
        (AppSpec(target=f"{HERE}:without_bridge", store="memory:"), "--store"),
        (AppSpec(target=f"{HERE}:without_bridge", key_file=Path("key")), "--ticket-key-file"),
        (AppSpec(target=f"{HERE}:without_bridge", origins=("https://a.example",)), "--origin"),
        (
            AppSpec(target=f"{HERE}:without_bridge", runs_seconds=1.0, drain_seconds=1.0),
            "--runs-seconds, --drain-seconds",
        ),
    ],
)
def test_application_accepts_no_options(served: AppSpec, named: str) -> None:
    with pytest.raises(
        ServeError, match=f"it is a complete application, to which options do not apply; leave out {named}$"
    ):
        served.load()


def test_unknown_store_is_refused() -> None:
    with pytest.raises(UnknownName, match="no store is called 'mongo'"):
        AppSpec(target=f"{HERE}:plain", store="mongo://here").load()


def test_shared_store_needs_a_shared_key() -> None:
    served = AppSpec(target=f"{HERE}:plain", store="redis://127.0.0.1:1")
    with pytest.raises(
        ServeError, match=f"must also share a ticket key: give --ticket-key-file FILE, or {KEY_VARIABLE}"
    ):
        served.load()
    AppSpec(target=f"{HERE}:owners_only", store="redis://127.0.0.1:1").load()


@pytest.mark.parametrize(
    ("name", "store", "called"),
    [("plain", None, "memory"), ("plain", "memory:", "memory"), ("kept", "sqlite:///events", "sqlite")],
)
def test_single_worker_store_is_refused_for_two_workers(name: str, store: str | None, called: str) -> None:
    served = AppSpec(target=f"{HERE}:{name}", store=store)
    served.load(1)
    with pytest.raises(ServeError) as refusal:
        served.load(2)
    assert f"its {called} store serves one worker, not 2" in str(refusal.value)
    assert "use --workers 1, or give --store redis://HOST:PORT" in str(refusal.value)


def test_shared_store_and_custom_stores_are_accepted_for_two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    AppSpec(target=f"{HERE}:plain", store="redis://127.0.0.1:1").load(2)
    AppSpec(target=f"{HERE}:without_bridge").load(2)
    AppSpec(target=f"{HERE}:kept").load(2)


async def test_store_of_the_environment_replaces_only_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE_VARIABLE, f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(DeterministicStartupError, match="the sqlite store retains logs"):
        await started(AppSpec(target=f"{HERE}:plain"))
    for name in ("kept", "chosen"):
        application, _ = await started(AppSpec(target=f"{HERE}:{name}"))
        assert application.stores.name == "memory"
        assert application.stores.log.retention == getattr(sys.modules[HERE], name).stores.settings["retention"]
    assert AppSpec(target=f"{HERE}:without_bridge").load(2) is without_bridge
    monkeypatch.setenv(STORE_VARIABLE, "redis://127.0.0.1:1")
    with pytest.raises(ServeError, match="must also share a ticket key"):
        AppSpec(target=f"{HERE}:plain").load(2)
    monkeypatch.setenv(STORE_VARIABLE, "")
    assert (await started(AppSpec(target=f"{HERE}:plain")))[0].config.stores is MEMORY


REDIS, SQLITE, FEW = "redis://127.0.0.1:1", "sqlite:///a.db", Retention(events=5)


@pytest.mark.parametrize(
    ("own", "store", "dropped"),
    [
        (memory_stores(FEW), SQLITE, "retention"),
        (sqlite_stores("a.db", FEW), "memory:", "retention"),
        (sqlite_stores("a.db", synchronous="full"), SQLITE, "synchronous"),
        (sqlite_stores("a.db", routes=7), SQLITE, "routes"),
        (redis_stores(REDIS, FEW, prefix="mine"), REDIS, "retention and prefix"),
        (redis_stores(f"{REDIS}?prefix=mine"), REDIS, "prefix"),
        (redis_stores(REDIS, prefix="mine"), f"{REDIS}?prefix=theirs", "prefix"),
        (redis_stores(REDIS, prefix="mine"), f"{REDIS}?prefix=mine", ""),
        (redis_stores(REDIS, prefix="mine"), SQLITE, ""),
        (redis_stores(REDIS), f"{REDIS}?prefix=mine", ""),
        (sqlite_stores("a.db", synchronous="full"), f"{SQLITE}?synchronous=full", ""),
        (sqlite_stores("a.db", synchronous="full"), REDIS, ""),
        (memory_stores(), REDIS, ""),
    ],
)
def test_store_that_would_drop_a_setting_of_the_config_is_refused(
    own: StoreFactory, store: str, dropped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setattr(sys.modules[HERE], "plain", replace(plain, stores=own))
    served = AppSpec(target=f"{HERE}:plain", store=store)
    if dropped:
        with pytest.raises(ServeError, match=f"--store would drop the {dropped} of its BridgeConfig's stores"):
            served.load()
    else:
        served.load()


def test_spec_can_be_pickled_for_a_worker() -> None:
    served = AppSpec(target=f"{HERE}:plain", store="memory:", key_file=Path("key"))
    assert pickle.loads(pickle.dumps(served)) == served


OLD = "an old key, still accepted for a while"
NEW = "a new key, which signs from now on ...."


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "key"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_each_line_of_the_file_is_a_key_and_the_first_signs(tmp_path: Path) -> None:
    file = written(tmp_path, f"{NEW}\n\n{OLD}  \r\n")
    assert read_ticket_keys(file, {}) == (NEW.encode(), OLD.encode())


def test_key_comes_from_the_environment_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_ticket_keys(None, {KEY_VARIABLE: OLD}) == (OLD.encode(),)
    assert read_ticket_keys(written(tmp_path, NEW), {KEY_VARIABLE: OLD}) == (NEW.encode(),)
    binary = bytes(range(128, 192))
    assert read_ticket_keys(None, {KEY_VARIABLE: os.fsdecode(binary)}) == (binary,)


def test_keys_are_optional() -> None:
    assert read_ticket_keys(None, {}) == ()


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o601, 0o660, 0o666])
def test_key_file_is_refused_when_others_can_read_or_change_it(mode: int, tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="other users can access the key; run: chmod 600"):
        read_ticket_keys(written(tmp_path, NEW, mode), {})


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_private_key_file_is_read(mode: int, tmp_path: Path) -> None:
    assert read_ticket_keys(written(tmp_path, NEW, mode), {}) == (NEW.encode(),)


def status(*, owner: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))


def test_owner_of_the_key_file_decides_who_may_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    file = Path("key")
    for fine in (status(owner=1_000, mode=0o600), status(owner=0, mode=0o600), status(owner=0, mode=0o440)):
        check_private(file, fine)
    for open_to_others in (status(owner=1_000, mode=0o640), status(owner=0, mode=0o444), status(owner=0, mode=0o660)):
        with pytest.raises(ServeError, match="other users can access the key"):
            check_private(file, open_to_others)
    with pytest.raises(ServeError, match="belongs to another user"):
        check_private(file, status(owner=1_001, mode=0o600))


def test_key_file_behind_a_symbolic_link_is_checked(tmp_path: Path) -> None:
    link = tmp_path / "link"
    file = written(tmp_path, NEW)
    link.symlink_to(file)
    assert read_ticket_keys(link, {}) == (NEW.encode(),)
    file.chmod(0o644)
    with pytest.raises(ServeError):
        read_ticket_keys(link, {})


@pytest.mark.parametrize(
    ("text", "expected"), [("", "contains no ticket key"), ("\n \n", "contains no ticket key"), ("short", "not 5")]
)
def test_unusable_key_is_refused_and_its_source_named(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=expected) as refusal:
        read_ticket_keys(written(tmp_path, text), {})
    assert refusal.value.what == str(tmp_path / "key")
    with pytest.raises(ServeError, match=expected) as refusal:
        read_ticket_keys(None, {KEY_VARIABLE: text})
    assert refusal.value.what == KEY_VARIABLE


def test_short_second_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="not 9"):
        read_ticket_keys(written(tmp_path, f"{NEW}\ntoo short"), {})


def test_error_never_contains_the_key(tmp_path: Path) -> None:
    with pytest.raises(ServeError) as refusal:
        read_ticket_keys(written(tmp_path, "my secret"), {})
    assert "my secret" not in str(refusal.value)


def test_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_ticket_keys(tmp_path / "nowhere", {})
