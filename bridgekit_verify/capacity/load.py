"""The program that reads: plain sockets in a process of their own, which note what they read and when, and no more.

A client must not be what is measured. So nothing is decoded while a load is under way, and no event loop stands between
a socket and the clock; the frames are taken apart afterwards, by the protocol of the `websockets` library.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import time
from typing import Final, assert_never

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from bridgekit.chain.collaborators import MemoryThreads
from bridgekit.errors import BridgekitError
from bridgekit.events import FRAME_BYTES
from bridgekit.signals import Gap, Subscribed, decode_any
from bridgekit.transport.admission import PROTOCOL, TICKET_PROTOCOL
from bridgekit.transport.spent import SpentInMemory
from bridgekit.transport.tickets import Tickets
from bridgekit_verify.capacity.heard import heard
from bridgekit_verify.capacity.pipe import Clocks, Connect, Connected, Enough, Heard, Read, Ready, files_at_most, say
from bridgekit_verify.capacity.schedule import Wave, owner
from bridgekit_verify.measure.experiment import arrival_of
from bridgekit_verify.measure.history import Arrival, History, Missing, Socket

__all__ = ["NotSubscribed"]

_IN: Final = 0
READ_BYTES: Final = 262_144
AT_ONCE: Final = 64
"""Sockets that are being opened at a time: fewer than a server lets wait to be accepted."""
OPEN_SECONDS: Final = 20.0
QUIET_SECONDS: Final = 0.02
"""Nothing came for so long: time to take apart what did."""
LAST_SECONDS: Final = 3.0
"""How long nothing more may come, when all was said, before what is missing is lost."""


class NotSubscribed(BridgekitError):
    """A socket was not let in, or not in time."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} sockets were not subscribed within {OPEN_SECONDS:g} s")
        self.missing = missing


class Subscriber:
    """One socket of one thread's owner."""

    def __init__(self, number: int, port: int, tickets: Tickets) -> None:
        owned = owner(number)
        self.socket = Socket(number, owned.thread_id, owned.user_id)
        self.arrivals: list[Arrival] = []
        self.gaps: list[Missing] = []
        self.epoch = ""
        """Of its numbering; empty until it is subscribed."""
        self.raw = socket.create_connection(("127.0.0.1", port), timeout=OPEN_SECONDS)
        self._chunks: list[tuple[float, bytes]] = []
        ticket = tickets.issue(owned.user_id, owned.thread_id)
        self._protocol = ClientProtocol(
            parse_uri(f"ws://127.0.0.1:{port}/ws?thread_id={owned.thread_id}"),
            subprotocols=[Subprotocol(PROTOCOL), Subprotocol(TICKET_PROTOCOL + ticket)],
            max_size=FRAME_BYTES,
        )
        self._protocol.send_request(self._protocol.connect())
        self._send()

    @property
    def open(self) -> bool:
        return self._protocol.state in (State.CONNECTING, State.OPEN)

    def read(self) -> bool:
        """Note what came, and when; False where nothing will any more."""
        try:
            data = self.raw.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        self._chunks.append((time.time(), data))
        return bool(data)

    def take_apart(self) -> None:
        """Decode what was read so far, and answer the server's pings."""
        chunks, self._chunks = self._chunks, []
        for moment, data in chunks:
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    self._take(bytes(event.data), moment)
        if chunks and self.open:
            self._send()

    def _take(self, frame: bytes, moment: float) -> None:
        item = decode_any(frame)
        if isinstance(item, Subscribed):
            self.epoch = item.epoch
        elif isinstance(item, Gap):
            self.gaps.append(Missing(item.first, item.last, item.epoch))
        else:
            self.arrivals.append(arrival_of(self.socket, item, read_at=moment, epoch=self.epoch))

    def _send(self) -> None:
        self.raw.sendall(b"".join(self._protocol.data_to_send()))


class Load:
    """All sockets of this process."""

    def __init__(self) -> None:
        self.subscribers: list[Subscriber] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(_IN, selectors.EVENT_READ)
        self._torn = b""
        self._asked: list[bytes] = []
        self._noted: set[Subscriber] = set()
        """Those that read something which is not taken apart yet."""
        self._over = False

    def asked(self) -> bytes | None:
        """The next question; None when there will be no more. Meanwhile pings are answered."""
        while not self._asked:
            if self._over:
                return None
            self._turn(None)
            self._take_apart()
        return self._asked.pop(0)

    def connect(self, asked: Connect) -> Connected:
        """Open a socket for each of these threads, and wait until all are subscribed; NotSubscribed."""
        tickets = Tickets(MemoryThreads(), SpentInMemory(), keys=(asked.key,))
        until, waiting = time.time() + OPEN_SECONDS, list[Subscriber]()
        for number in range(asked.first, asked.last):
            opened = Subscriber(number, asked.port, tickets)
            self._selector.register(opened.raw, selectors.EVENT_READ, opened)
            waiting.append(opened)
            self.subscribers.append(opened)
            if len(waiting) == AT_ONCE:
                until = time.time() + OPEN_SECONDS
                waiting = self._until_subscribed(waiting, until)
        self._until_subscribed(waiting, until)
        return Connected(len(self.subscribers))

    def _until_subscribed(self, waiting: list[Subscriber], until: float) -> list[Subscriber]:
        while waiting:
            self._turn(QUIET_SECONDS)
            self._take_apart()
            waiting = [each for each in waiting if not each.epoch]
            if waiting and time.time() > until:
                raise NotSubscribed(len(waiting))
        return waiting

    def read(self, asked: Read) -> Heard:
        """Read what comes of a wave."""
        wave, enough, came_at = asked.wave, False, time.time()
        ours = {each.socket.number for each in self.subscribers}
        expected = sum(wave.thread_of(run) in ours for run in range(len(wave.begins))) * wave.plan.events
        for each in self.subscribers:
            each.arrivals.clear()
            each.gaps.clear()
        # A collection in the midst of it would look like a server that stood still.
        gc.collect()
        gc.disable()
        began = Clocks.read()
        self._read_until(wave.ends_at)
        shares = began.shares_until(Clocks.read())
        while True:
            if self._turn(QUIET_SECONDS):
                came_at = time.time()
                continue
            if self._asked:
                enough = bool(msgspec.json.decode(self._asked.pop(0), type=Enough))
                came_at = time.time()
            self._take_apart()
            there = sum(len(each.arrivals) for each in self.subscribers)
            if (enough and (there >= expected or time.time() > came_at + LAST_SECONDS)) or self._over:
                break
        gc.enable()
        closed = sum(not each.open for each in self.subscribers)
        return heard(wave, self._history(wave), shares=shares, within_seconds=asked.within_seconds, closed=closed)

    def _read_until(self, moment: float) -> None:
        """Only note what comes."""
        while (now := time.time()) < moment:
            self._turn(moment - now)

    def _turn(self, seconds: float | None) -> bool:
        """Wait at most so long, and read from every socket on which there is something; whether there was."""
        came = False
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._listen()
            else:
                came = True
                self._noted.add(key.data)
                if not key.data.read():
                    self._selector.unregister(key.fileobj)
        return came

    def _listen(self) -> None:
        if not (came := os.read(_IN, READ_BYTES)):
            self._over = True
            self._selector.unregister(_IN)
        *lines, self._torn = (self._torn + came).split(b"\n")
        self._asked += lines

    def _take_apart(self) -> None:
        for each in self._noted:
            each.take_apart()
        self._noted.clear()

    def _history(self, wave: Wave) -> History:
        history = History(expected=wave.expectations())
        for each in self.subscribers:
            history.sockets.append(each.socket)
            history.arrivals += each.arrivals
            history.gaps[each.socket.number] = each.gaps
        return history


def main() -> None:
    """Do what is asked, until there is nothing more to read."""
    files_at_most()
    load, questions = Load(), msgspec.json.Decoder(Connect | Read)
    say(Ready())
    while (line := load.asked()) is not None:
        match asked := questions.decode(line):
            case Connect():
                say(load.connect(asked))
            case Read():
                say(load.read(asked))
            case _:
                assert_never(asked)


if __name__ == "__main__":
    main()
