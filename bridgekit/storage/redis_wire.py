"""One connection to a server of the Redis protocol: commands go out at once, answers come back in their order.

coredis reads the protocol for us. Its connections are not used: they pass each message through two queues and as many
tasks, which costs more than all that is done with it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from itertools import repeat
from typing import Any, Final

import anyio
from coredis.constants.resp import DataType
from coredis.exceptions import InvalidResponse, RedisError
from coredis.parser import NotEnoughData, Parser
from coredis.typing import RedisValueT, ResponseType

from bridgekit.storage.redis_bell import bell

__all__ = ["LOST", "TROUBLE", "Answered", "Heard", "Wire", "command", "number", "word"]

TROUBLE: Final = (RedisError, OSError, TimeoutError)
"""What goes wrong between us and a server."""
LOST: Final = "the connection was lost"

Answered = Callable[[ResponseType | BaseException], None]
"""Is given a command's answer, or the error that stands for it. Must not wait; TROUBLE from it ends the connection."""
Heard = Callable[[list[Any]], None]
"""Is given each message that is no answer, under the same conditions."""

_BEGIN: Final = b">3\r\n$8\r\nsmessage\r\n$"
_MESSAGE: Final = re.compile(re.escape(_BEGIN) + rb"\d+\r\n([^\r]*)\r\n\$(\d+)\r\n")
"""How what is told over a channel begins, whose name has no line's end in it: the channel, and the length of the text.
Most of what is received is of this kind, and the parser takes four times as long for it."""


def word(value: bytes) -> bytes:
    """One part of a command as it goes out."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def number(value: int) -> bytes:
    """The same, in decimal digits."""
    return word(b"%d" % value)


def command(name: bytes, *arguments: RedisValueT) -> bytes:
    """A whole command as it goes out. A name of several words is several parts."""
    parts: list[RedisValueT] = [*name.split(b" "), *arguments]
    return b"*%d\r\n" % len(parts) + b"".join([word(_text(part)) for part in parts])


def _text(value: RedisValueT) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


class Wire:
    """What is known of an open connection, whatever brings its bytes: see `redis_way`."""

    def __init__(self, heard: Heard) -> None:
        self.usable = False
        """Whether anything can be sent. The end of that is not the end of what calls it has to make."""
        self.lost = anyio.Event()
        self.error: BaseException = ConnectionResetError(LOST)
        """Why it was lost, once it is."""
        self._heard = heard
        self._parser = Parser()
        self._rest = b""
        """The beginning of a message, of which more is to come."""
        self._asked: deque[Answered] = deque()
        self._write: Callable[[bytes], None] = _nowhere

    def open(self, write: Callable[[bytes], None]) -> None:
        """From now on what is sent is written there, without waiting."""
        self._write = write
        self.usable = True

    def send(self, packed: bytes, answered: Answered, *, answers: int = 1) -> None:
        """Send so many commands, each of whose answers is told. OSError where the connection is lost."""
        if not self.usable:
            raise ConnectionResetError(LOST)
        if answers == 1:
            self._asked.append(answered)
        else:
            self._asked.extend(repeat(answered, answers))
        self._write(packed)

    def ask(self, name: bytes, *arguments: RedisValueT) -> Awaitable[ResponseType]:
        """Send a command; the answer is to be awaited. TROUBLE instead of it is raised."""
        answer = _Answer()
        self.send(command(name, *arguments), answer.give)
        return answer

    def tell(self, name: bytes, *arguments: RedisValueT) -> None:
        """Send a command that is answered by messages, or not at all."""
        if not self.usable:
            raise ConnectionResetError(LOST)
        self._write(command(name, *arguments))

    def received(self, data: bytes) -> None:
        """Take what the server sent."""
        if not self.usable:
            return
        try:
            if not (self._parser.nodes or self._parser.can_read()):
                data = self._messages(self._rest + data)
            if not data:
                return
            self._parser.feed(data)
            for kind, said in self._complete():
                self._take(kind, said)
                if self.lost.is_set():
                    return
        except TROUBLE as error:
            self.lose(error)

    def lose(self, error: BaseException) -> None:
        """It is of no use any more. Whoever waits for an answer is given the error; the first one counts."""
        if self.lost.is_set():
            return
        self.usable = False
        self.error = error
        self.lost.set()
        asked, self._asked = self._asked, deque()
        for answered in asked:
            answered(error)

    def _messages(self, data: bytes) -> bytes:
        """Take the messages that stand at the beginning, and give back what is for the parser."""
        at, size = 0, len(data)
        while (head := _MESSAGE.match(data, at)) is not None:
            begin = head.end()
            end = begin + int(head[2])
            if size < end + 2 or not self.usable:
                break
            self._heard([b"smessage", head[1], data[begin:end]])
            at = end + 2
        rest = data[at:]
        # One that is not all there waits for the rest of it.
        waits = rest.startswith(_BEGIN) or _BEGIN.startswith(rest)
        self._rest = rest if waits else b""
        return b"" if waits else rest

    def _complete(self) -> Iterable[tuple[DataType, Any]]:
        try:
            while not isinstance(said := self._parser.parse(), NotEnoughData):
                yield said
        except (ValueError, IndexError) as error:
            raise InvalidResponse("what it says is not the Redis protocol") from error

    def _take(self, kind: DataType, said: Any) -> None:
        if kind is DataType.PUSH:
            self._heard(said)
        elif self._asked:
            self._asked.popleft()(said)
        elif isinstance(said, RedisError):
            # Of a command that was told: it will not be done.
            raise said


class _Answer:
    """One that is waited for."""

    __slots__ = ("_bell", "_said", "_there")

    def __init__(self) -> None:
        self._bell = bell()
        self._said: ResponseType | BaseException = None
        self._there = False

    def give(self, said: ResponseType | BaseException) -> None:
        self._said, self._there = said, True
        self._bell.ring()

    def __await__(self) -> Generator[Any, Any, ResponseType]:
        return self._get().__await__()

    async def _get(self) -> ResponseType:
        if not self._there:
            await self._bell
        if isinstance(self._said, BaseException):
            raise self._said
        return self._said


def _nowhere(data: bytes) -> None:
    raise ConnectionResetError(LOST)
