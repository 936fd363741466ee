"""Tracks which client each run, message and call belongs to, to find frames that reached another user or thread."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Final

from bridgekit_verify.check.client_state import ClientState, StreamKey
from bridgekit_verify.check.frames import ObservedFrame
from bridgekit_verify.check.property_answers import Evidence, Findings, Property, excerpt

__all__ = ["Owners"]

MAX_STRAYS: Final = 1_000
FOREIGN: Final = "an id of another client"


class Owners:
    """Records which clients received each id, and which of these clients own the id."""

    def __init__(self) -> None:
        self._first: dict[StreamKey, tuple[str, bool, int]] = {}
        self._shared: dict[StreamKey, dict[str, tuple[bool, int]]] = {}
        """For each id, the clients that received the id. Ids that only one client received are left out to save
        memory."""
        self._strays: list[tuple[str, ClientState, Evidence]] = []
        """Frames whose thread is not the thread of their client."""

    def saw(self, key: StreamKey, client: ClientState, frame: ObservedFrame) -> None:
        """Record an id's first frame at a client. If the frame names the client's thread, the client owns the id."""
        own = frame.thread is not None and frame.thread == client.thread
        first, begun, index = self._first.setdefault(key, (client.id, own, frame.origin.index))
        if first != client.id:
            shared = self._shared.setdefault(key, {first: (begun, index)})
            shared.setdefault(client.id, (own, frame.origin.index))

    def began(self, key: StreamKey, client: str) -> None:
        first, _, index = self._first.get(key, ("", False, 0))
        if client in (shared := self._shared.get(key, {})):
            shared[client] = (True, shared[client][1])
        elif client == first:
            self._first[key] = (client, True, index)

    def forget(self, key: StreamKey) -> None:
        self._first.pop(key, None)
        self._shared.pop(key, None)

    def check_ids(self, findings: Findings, client: ClientState, frame: ObservedFrame) -> None:
        """Compare the user and the thread that a frame names with those of its client."""
        origin = frame.origin
        subscribes = frame.kind == "subscribed"  # to one more thread
        for which, word, own, named in (
            (Property.USER, "user", origin.user or client.user, frame.user),
            (Property.THREAD, "thread", origin.thread or (None if subscribes else client.thread), frame.thread),
        ):
            if named is not None and own is not None and named != own:
                findings.broken(
                    which, word, f"client {client.id}, message {origin.index}",
                    f"client {client.id} of {word} {own} received a frame of {word} {named}", FOREIGN, origin,
                )  # fmt: skip
                if which is Property.THREAD and len(self._strays) < MAX_STRAYS:
                    self._strays.append((named, client, excerpt(origin)))

    def conclude(self, findings: Findings, clients: Mapping[str, ClientState]) -> None:
        """Report each id that a client received although a client of another user or thread owns the id."""
        self._conclude_strays(findings, clients)
        for (kind, name), seen in self._shared.items():
            if name is not None:
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
        begun = [name for name, (own, _) in seen.items() if own]
        owners = [clients[name] for name in begun]
        for which, word in ((Property.USER, "user"), (Property.THREAD, "thread")):
            side = attrgetter(word)
            values = {side(clients[name]) for name in seen}
            if len(values) < 2:
                continue
            owning = {side(client) for client in owners}
            shared = {client.thread for client in owners} & {clients[name].thread for name in seen if name not in begun}
            if len(owning) != 1 or None in values or (which is Property.USER and shared - {None}):
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
