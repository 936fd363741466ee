"""Tracks which client each run, message and call belongs to, to find frames that reached another user or thread."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Final, NamedTuple

from bridgekit_verify.check.answers import Evidence, Findings, Property, excerpt
from bridgekit_verify.check.frames import ObservedFrame
from bridgekit_verify.check.streams import ClientState, StreamKey

__all__ = ["Owners"]

MAX_STRAYS: Final = 1_000
FOREIGN: Final = "an id of another client"


class _Stray(NamedTuple):
    """A frame whose thread is not the thread of its client."""

    thread: str
    client: ClientState
    evidence: Evidence


class Owners:
    """For each id, the clients that received it, and whether each of them received its first frame."""

    def __init__(self) -> None:
        self._seen: dict[StreamKey, dict[str, tuple[bool, int]]] = {}
        self._strays: list[_Stray] = []

    def saw(self, key: StreamKey, client: str, frame: ObservedFrame) -> None:
        """Record the first frame with this id at a client."""
        self._seen.setdefault(key, {}).setdefault(client, (False, frame.origin.index))

    def began(self, key: StreamKey, client: str) -> None:
        clients = self._seen.get(key)
        if clients is not None and client in clients:
            clients[client] = (True, clients[client][1])

    def forget(self, key: StreamKey) -> None:
        self._seen.pop(key, None)

    def check_ids(self, findings: Findings, client: ClientState, frame: ObservedFrame) -> None:
        """Compare the ids in a frame with those of its client."""
        user, thread = frame.user, frame.thread
        if user is not None and client.user is not None and user != client.user:
            findings.broken(
                Property.USER, "user", f"client {client.id}, message {frame.origin.index}",
                f"client {client.id} of user {client.user} received a frame of user {user}", FOREIGN, frame.origin,
            )  # fmt: skip
        if thread is not None and client.thread is not None and thread != client.thread:
            findings.broken(
                Property.THREAD, "thread", f"client {client.id}, message {frame.origin.index}",
                f"client {client.id} of thread {client.thread} received a frame of thread {thread}",
                FOREIGN, frame.origin,
            )  # fmt: skip
            if len(self._strays) < MAX_STRAYS:
                self._strays.append(_Stray(thread, client, excerpt(frame.origin)))

    def conclude(self, findings: Findings, clients: Mapping[str, ClientState]) -> None:
        """Find ids that a client received although their first frame reached a client of another user or thread."""
        self._conclude_strays(findings, clients)
        for (kind, name), seen in self._seen.items():
            if len(seen) > 1 and name is not None:
                subject = f"{'message' if kind == 'text' else kind} {name}"
                self._conclude_id(findings, clients, subject, seen)

    def _conclude_strays(self, findings: Findings, clients: Mapping[str, ClientState]) -> None:
        users: dict[str | None, set[str | None]] = {}
        for client in clients.values():
            users.setdefault(client.thread, set()).add(client.user)
        for thread, client, evidence in self._strays:
            theirs = users.get(thread, set()) - {None}
            if theirs and client.user is not None and client.user not in theirs:
                findings.broken(
                    Property.USER, "thread", f"client {client.id}, message {evidence.index}",
                    f"client {client.id} of user {client.user} received a frame of thread {thread}, "
                    f"which belongs to {', '.join(sorted(map(str, theirs)))}", FOREIGN, evidence,
                )  # fmt: skip

    def _conclude_id(
        self,
        findings: Findings,
        clients: Mapping[str, ClientState],
        subject: str,
        seen: Mapping[str, tuple[bool, int]],
    ) -> None:
        owners = [clients[name] for name, (begun, _) in seen.items() if begun]
        for which, word in ((Property.USER, "user"), (Property.THREAD, "thread")):
            side = attrgetter(word)
            values = {side(clients[name]) for name in seen}
            if len(values) < 2:
                continue
            owning = {side(client) for client in owners}
            if len(owning) != 1 or None in values:
                findings.unknown(
                    which, f"{subject} occurs at clients of several {word}s, and does not show whose it is"
                )
                continue
            for name, (_, index) in seen.items():
                if side(clients[name]) not in owning:
                    findings.broken(
                        which, "foreign id", f"{subject} at client {name}",
                        f"client {name} of {word} {side(clients[name])} received a frame of {subject}, "
                        f"which began at {word} {next(iter(owning))}", FOREIGN, Evidence(index, name),
                    )  # fmt: skip
