"""Applies the load of a check: users with threads, runs, tabs, cut connections and slow readers."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import anyio

from bridgekit_verify.check.live.backend_file import Backend
from bridgekit_verify.check.live.clients import (
    BackendDriver,
    ClientGroup,
    LiveClient,
    LiveThread,
    PlannedCut,
    RequestedRun,
)
from bridgekit_verify.check.live.drivers import CONNECTION_ERRORS, Requests, RunRefused, reason_of
from bridgekit_verify.check.live.model_ledger import CallOutcome, ModelLedger
from bridgekit_verify.check.live.recorder import LiveRecorder
from bridgekit_verify.check.live.scenarios import LOADS, Load, LoadKind, model_fails
from bridgekit_verify.errors import UnusableBackend
from bridgekit_verify.faults.proxy import RunningToxic, proxy

__all__ = ["LoadSession"]

CONNECT_SECONDS: Final = 15.0
FIRST_CALL_SECONDS: Final = 10.0
"""How long a backend may take, after the request for a run, to call the model for the first time."""
MAX_ATTEMPTS: Final = 5
"""Limit on a client's consecutive failures to connect."""
CUT_AFTER: Final = (1, 5)
"""The minimum and maximum number of messages after which a connection is cut. Only messages during a run count."""
SLOW_BYTES_PER_SECOND: Final = 20_000
NO_END_SECONDS: Final = 1.0
"""Limit on a run's silence after the model's final text, if the dialect has no frame that ends a run."""
PIECES_OFFLINE: Final = 3
"""After a cut, a client stays offline until the model has sent this many further pieces, or has ended its answers.
MAX_OFFLINE_SECONDS limits the wait for these pieces."""
MAX_OFFLINE_SECONDS: Final = 2.0
SLOW_SECONDS: Final = 2.0
"""How long a slow reader reads slowly. After this time, the client reads at full speed, so that all runs end in
time."""
POLL_SECONDS: Final = 0.05
NOT_RESUMED: Final = "the check cut the connection, and the file has no [resume]"


class LoadSession:
    """Applies scenarios to one backend, and records what its clients receive."""

    def __init__(
        self, backend: Backend, driver: BackendDriver, requests: Requests, ledger: ModelLedger, load: Load, url: str,
        *, model: str = "", seed: int = 0, max_frames: int | None = None,
    ) -> None:  # fmt: skip
        self.recorder = LiveRecorder(backend.stream_dialect())
        self.problems: list[str] = []
        """Requests that failed, connections that the backend ended, and runs without an end."""
        self.limit: str | None = None
        """The reason why the load ended early."""
        self._backend, self._driver, self._requests, self._ledger, self._load = backend, driver, requests, ledger, load
        self._model = model
        self._url, self._seed, self._random, self._max_frames = url, seed, Random(seed), max_frames
        dialect = backend.stream_dialect()
        has_end = dialect is None or not dialect.lacks("kinds.ended|kinds.error")
        self._quiet_seconds = load.quiet_seconds if has_end else min(load.quiet_seconds, NO_END_SECONDS)
        self._confirmation = backend.listen.confirmation if backend.listen is not None else ""
        self._users: list[dict[str, str]] = []
        self._groups: dict[str, ClientGroup] = {}
        self._cuts: dict[str, PlannedCut] = {}
        self._slow: dict[str, tuple[RunningToxic, float]] = {}
        """For each slow reader, the toxic that slows its reads, and the time at which the toxic ends."""
        self._scope = anyio.CancelScope()

    async def run(self, scenarios: tuple[str, ...]) -> None:
        """Apply each scenario in turn.

        If the backend does not call the model or sends no frame in the first scenario, the other scenarios are skipped.
        """
        with self._scope:
            self._users = [await self._user(number) for number in range(1, self._load.users + 1)]
            for name in scenarios:
                await self._apply(name, LOADS[name])
                if not self._ledger.calls or not self.recorder.messages:
                    return

    # Preparation

    async def _user(self, number: int) -> dict[str, str]:
        given = self._backend.users
        if given and number > len(given):
            raise UnusableBackend(
                self._backend.path, f"[[users]] names only {len(given)} of the load's {self._load.users} users"
            )
        values = {"model": self._model, "user": f"user{number}", **(given[number - 1] if given else {})}
        for step in self._backend.prepare:
            if step.per == "user":
                values |= await self._requests.prepare(step, self._url, values)
        return values

    async def _user_threads(self, scenario: str, kind: LoadKind, user: int) -> list[LiveThread]:
        threads = list[LiveThread]()
        for number in range(1, self._load.threads + 1):
            name = f"{scenario} user{user + 1} thread{number}"
            values = {**self._users[user], "thread": str(self._uuid()), "scenario": scenario}
            for step in self._backend.prepare:
                if step.per == "thread":
                    values |= await self._requests.prepare(step, self._url, values)
            if self._backend.per_user:
                owner, shared = f"{scenario} user{user + 1}", {**self._users[user], "scenario": scenario}
                group = threads[0].group if threads else self._group(user % 2 == 1, owner, kind, shared)
            else:
                group = self._group((user + number) % 2 == 0, name, kind, values)
            threads.append(LiveThread(name, values, group))
        return threads

    def _group(self, inside: bool, name: str, kind: LoadKind, values: dict[str, str]) -> ClientGroup:
        group = ClientGroup(inside)
        if self._backend.kind != "response":
            for tab in range(1, max(kind.tabs, self._load.tabs) + 1):
                self._add_client(group, f"{name} tab{tab}", {**values, "tab": str(tab)})
        return group

    def _add_client(self, group: ClientGroup, name: str, values: dict[str, str]) -> LiveClient:
        client = LiveClient(name, values, self._url, self._received)
        group.clients.append(client)
        self._groups[name] = group
        return client

    def _canary(self, name: str) -> str:
        """Return the canary of a run.

        The canary depends only on the seed and the run's name, so that baselines stay valid.
        """
        return f"K{hashlib.blake2b(f'{self._seed} {name}'.encode(), digest_size=4).hexdigest()}"

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    # Load

    async def _apply(self, name: str, kind: LoadKind) -> None:
        load = self._load
        threads = [each for user in range(load.users) for each in await self._user_threads(name, kind, user)]
        groups = list({id(thread.group): thread.group for thread in threads}.values())
        async with anyio.create_task_group() as listening:
            for group in groups:
                for client in group.clients:
                    listening.start_soon(self._listen, group, client, kind)
            async with anyio.create_task_group() as driving:
                for thread in threads:
                    numbers = iter(range(1, load.runs + 1))
                    for _ in range(load.at_once):
                        driving.start_soon(self._drive, thread, kind, numbers)
            await self._settle(groups)
            listening.cancel_scope.cancel()
        if self._backend.history is not None:
            for thread in threads:
                text = await self._requests.history(self._url, thread.values)
                self._ledger.add_history(user=thread.values["user"], thread=thread.values["thread"], text=text)

    async def _drive(self, thread: LiveThread, kind: LoadKind, numbers: Iterator[int]) -> None:
        for number in numbers:
            group = thread.group
            clients = group.clients
            if self._backend.kind == "response":
                clients = [self._add_client(group, f"{thread.name} run{number}", {**thread.values, "tab": "1"})]
            else:
                await self._wait_connected(group)
            asking = clients[number % len(clients)]
            run = self._request(thread, kind.script, number, clients, asking)
            try:
                if self._backend.kind == "response":
                    await self._stream(group, kind, run, clients[0])
                else:
                    await self._start(asking, run)
                    await self._wait_until_over(group, run)
            except RunRefused as error:
                run.problem = str(error)
                if error.temporary or model_fails(kind.script):
                    self._excuse([run], clients, run.problem)
            if run.problem and not run.excused:
                self.problems.append(f"{thread.name} run {number}: {run.problem}")
            group.open_runs.remove(run)
            if run.problem and not self._ledger.calls:
                return

    async def _start(self, client: LiveClient, run: RequestedRun) -> None:
        try:
            await self._driver.start(client, run)
        except CONNECTION_ERRORS as error:
            client.closed_because = reason_of(error)
            if self._backend.kind != "response":
                raise RunRefused(client.closed_because) from error

    def _request(
        self, thread: LiveThread, script: str, number: int, clients: list[LiveClient], asking: LiveClient
    ) -> RequestedRun:
        prompt = self._ledger.add_prompt(
            user=thread.values["user"],
            thread=thread.values["thread"],
            canary=self._canary(f"{thread.name} run {number}"),
            clients=[client.id for client in clients],
            scenario=script,
            asked_on=asking.id if self._backend.run.send else "",
        )
        run = RequestedRun(str(self._uuid()), prompt.canary, prompt.text, number, thread.values)
        self.recorder.add(run)
        thread.group.open_runs.append(run)
        thread.group.active_at = time.monotonic()
        return run

    async def _stream(self, group: ClientGroup, kind: LoadKind, run: RequestedRun, client: LiveClient) -> None:
        """Request a run and read its response. If the check cut the response, continue it as `[resume]` states."""
        client.values = {**client.values, **run.values}
        with anyio.move_on_after(self._load.run_seconds) as limit:
            async with self._path(group, client, kind if run.number == 1 else LoadKind(kind.script, slow=kind.slow)):
                await self._start(client, run)
                while self._was_cut(client):
                    self._note_cut([run], client)
                    if run.excused:
                        return
                    await self._reconnect(client, [run])
                    await self._driver.listen(client)
        if limit.cancelled_caught:
            run.problem = f"its response did not end within {self._load.run_seconds:g} s"
        elif client.closed_because:
            run.problem = client.closed_because

    async def _wait_until_over(self, group: ClientGroup, run: RequestedRun) -> None:
        """Wait until the run ends, or until neither the model nor the backend sends data for the run."""
        with anyio.move_on_after(self._load.run_seconds):
            while not run.ended and run.problem is None:
                with anyio.move_on_after(POLL_SECONDS):
                    await group.changed.wait()
                run.problem = self._given_up(group, run)
            return
        run.problem = f"no end arrived within {self._load.run_seconds:g} s"

    def _given_up(self, group: ClientGroup, run: RequestedRun) -> str | None:
        calls, now = self._ledger.calls_of(run.canary), time.monotonic()
        progress = len(calls) + self._pieces([run.canary])
        if progress != run.progress:
            run.progress, group.active_at = progress, now
        if run.ended or self._is_sending([run.canary]):
            return None
        silent = now - group.active_at
        if not calls:
            return f"no call of the model within {FIRST_CALL_SECONDS:g} s" if silent > FIRST_CALL_SECONDS else None
        final = calls[-1].outcome is CallOutcome.COMPLETE and not calls[-1].calls
        limit = self._quiet_seconds if final else self._load.unfinished_seconds
        return f"no end arrived, and nothing else for {limit:g} s" if silent > limit else None

    async def _settle(self, groups: list[ClientGroup]) -> None:
        """Wait until no more frames arrive."""
        if self._backend.kind == "response":
            return
        with anyio.move_on_after(self._load.run_seconds):
            settled = 0
            while settled < 2:  # On a busy machine, some frames may still be unread, so check twice.
                await anyio.sleep(POLL_SECONDS)
                settled = settled + 1 if self._is_settled(groups) else 0

    def _is_settled(self, groups: list[ClientGroup]) -> bool:
        silent = time.monotonic() - max(each.active_at for each in groups)
        connected = all(client.was_open for each in groups for client in each.clients)
        return connected and silent > self._load.settle_seconds

    # Connections

    async def _wait_connected(self, group: ClientGroup) -> None:
        for client in group.clients:
            with anyio.move_on_after(CONNECT_SECONDS):
                await client.wait_opened()
                continue
            wanted = f"receive a message with {self._confirmation!r}" if self._confirmation else "connect"
            reason = f": {client.closed_because}" if client.closed_because else ""
            text = f"client {client.id} did not {wanted} within {CONNECT_SECONDS:g} s{reason}"
            raise UnusableBackend(self._backend.path, text)

    async def _listen(self, group: ClientGroup, client: LiveClient, kind: LoadKind) -> None:
        """Listen as one client, and reconnect when the connection ends.

        Raises UnusableBackend after MAX_ATTEMPTS consecutive failures to connect.
        """
        async with self._path(group, client, kind):
            failed = 0
            while failed < MAX_ATTEMPTS:
                client.closed_because = ""
                try:
                    await self._driver.listen(client)
                except (RunRefused, *CONNECTION_ERRORS) as error:
                    client.closed_because = reason_of(error)
                if self._was_cut(client):
                    self._note_cut(group.open_runs, client)
                elif group.open_runs or not client.was_open:
                    self.problems.append(f"client {client.id}: {client.closed_because or 'the connection ended'}")
                failed = 0 if client.was_open else failed + 1
                await self._reconnect(client, group.open_runs)
            reason = client.closed_because or "the connection ended"
            raise UnusableBackend(self._backend.path, f"client {client.id} failed {failed} times to connect: {reason}")

    def _note_cut(self, runs: Iterable[RequestedRun], client: LiveClient) -> None:
        """Record that the check cut a client's connection. Without `[resume]`, pieces of `runs` may be missing."""
        if self._backend.resume is None and self._backend.kind != "class":
            self._excuse(runs, [client], NOT_RESUMED)
            return
        for run in runs:
            self._ledger.add_cut(run.canary, client.id)

    def _excuse(self, runs: Iterable[RequestedRun], clients: Iterable[LiveClient], reason: str) -> None:
        """Record the reason why missing pieces of `runs` do not count as lost."""
        for run in runs:
            run.excused = run.excused or reason == NOT_RESUMED
            for client in clients:
                self._ledger.excuse(run.canary, client.id, reason)

    async def _reconnect(self, client: LiveClient, runs: Iterable[RequestedRun]) -> None:
        """Stay offline for a while, so that the model sends further pieces for `runs`."""
        client.reconnects()
        canaries = [run.canary for run in runs]
        wanted = self._pieces(canaries) + PIECES_OFFLINE
        await anyio.sleep(self._load.offline_seconds)
        with anyio.move_on_after(MAX_OFFLINE_SECONDS):
            while self._pieces(canaries) < wanted and self._is_sending(canaries):  # noqa: ASYNC110 - polled: the model's thread sets no event
                await anyio.sleep(POLL_SECONDS)

    def _pieces(self, canaries: Iterable[str]) -> int:
        return sum(len(call.pieces) for canary in canaries for call in self._ledger.calls_of(canary))

    def _is_sending(self, canaries: Iterable[str]) -> bool:
        return any(call.outcome is CallOutcome.OPEN for canary in canaries for call in self._ledger.calls_of(canary))

    def _was_cut(self, client: LiveClient) -> bool:
        """Return whether the check cut the client's connection. The next connection is not cut."""
        cut = self._cuts.get(client.id)
        if cut is None or cut.toxic is None:
            return False
        cut.toxic.stop()
        del self._cuts[client.id]
        return True

    @asynccontextmanager
    async def _path(self, group: ClientGroup, client: LiveClient, kind: LoadKind) -> AsyncIterator[None]:
        """Connect the client through a fault proxy if the scenario needs one."""
        if not kind.cuts and not kind.slow:
            yield
            return
        parts = urlsplit(self._url)
        if parts.scheme != "http":
            raise UnusableBackend(self._backend.path, "the scenarios cut and slow_reader need a backend at http://")
        async with proxy(parts.hostname or "127.0.0.1", parts.port or 80) as between:
            client.base_url = between.url("http") + parts.path
            if kind.slow:
                until = time.monotonic() + SLOW_SECONDS
                self._slow[client.id] = between.slow_reader(SLOW_BYTES_PER_SECOND), until
            passed = bytearray()
            if kind.cuts and client is group.clients[0]:
                self._cuts[client.id] = PlannedCut(between, self._random.randint(*CUT_AFTER), group.inside)
                between.on_data = passed.extend
            try:
                yield
            finally:
                self._ledger.add_wire(client.id, passed.decode("ascii", "replace"))

    def _received(self, client: LiveClient, message: Any, event: str | None, event_id: str | None) -> None:
        if self.limit is not None:
            return
        group = self._groups[client.id]
        if not self._confirmation or self._confirmation in str(message):
            client.opened()
        group.active_at = time.monotonic()
        self.recorder.record(client, message, group.open_runs, event=event, event_id=event_id)
        cut = self._cuts.get(client.id)
        if cut is not None and group.open_runs:
            cut.count()
        toxic, until = self._slow.get(client.id, (None, 0.0))
        if toxic is not None and time.monotonic() > until:
            toxic.stop()
        group.wake()
        if self._max_frames is not None and len(self.recorder.messages) >= self._max_frames:
            self.limit = f"--max-frames {self._max_frames}"
            self._scope.cancel()
