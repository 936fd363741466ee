"""The chat backend with one mistake. The variable DEFECT chooses it; truth.toml lists what each mistake breaks."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, ClassVar

import anyio
from app import ChatAgent, ChatThread, Json, create_app


class DropsDeltas(ChatThread):
    """Every third piece of a text is not published."""

    pieces = 0

    def publish(self, event: Json) -> None:
        self.pieces += event["type"] == "text"
        if event["type"] != "text" or self.pieces % 3:
            super().publish(event)


class SwapsDeltas(ChatThread):
    """Every third piece of a text is published after the event that follows it."""

    pieces = 0
    held: Json | None = None

    def publish(self, event: Json) -> None:
        self.pieces += event["type"] == "text"
        if event["type"] == "text" and not self.pieces % 3:
            self.held = event
            return
        super().publish(event)
        if self.held is not None:
            held, self.held = self.held, None
            super().publish(held)


class PublishesToAllThreads(ChatThread):
    """The user's other threads get every event too."""

    all: ClassVar[list[PublishesToAllThreads]] = []

    def __init__(self, user: str, name: str) -> None:
        super().__init__(user, name)
        self.all.append(self)

    def publish(self, event: Json) -> None:
        super().publish(event)
        for other in self.all:
            if other is not self and other.user == self.user:
                ChatThread.publish(other, {"thread": self.name, **event})


class RepeatsAfterReconnect(ChatThread):
    """A reconnect adds a second listener, so the next piece of a text is published twice."""

    listeners = 1

    def publish(self, event: Json) -> None:
        super().publish(event)
        if event["type"] == "text" and self.listeners > 1:
            self.listeners = 1
            super().publish(event)

    def subscribe(self, after: int) -> AsyncIterator[Json]:
        self.listeners += after > 0
        return super().subscribe(after)


class LosesWhatWasSentOffline(ChatThread):
    """Pieces of a text are not stored while no socket is connected."""

    sockets = 0

    def publish(self, event: Json) -> None:
        super().publish(event)
        if event["type"] == "text" and not self.sockets:
            self.events[-1]["type"] = "lost"

    async def subscribe(self, after: int) -> AsyncIterator[Json]:
        self.sockets += 1
        try:
            async with aclosing(super().subscribe(after)) as events:
                async for event in events:
                    if event["type"] != "lost":
                        yield event
        finally:
            self.sockets -= 1


class LosesResults(ChatThread):
    """The result of every second call is not published."""

    results = 0

    def publish(self, event: Json) -> None:
        self.results += event["type"] == "call_result"
        if event["type"] != "call_result" or self.results % 2:
            super().publish(event)


class SharesAgent(ChatAgent):
    """All users share one agent object. While it loads a profile, the next run begins, and gets the thoughts."""

    latest: ClassVar[ChatAgent]

    async def run(self, question: str) -> None:
        SharesAgent.latest = self
        await anyio.sleep(0.1)
        self.listener = SharesAgent.latest
        await super().run(question)

    def think(self, thought: str) -> None:
        ChatAgent.think(self.listener, thought)


class MergesCalls(ChatAgent):
    """The arguments of parallel calls are appended to the first call."""

    def call_of(self, calls: dict[int, Json], index: int) -> Json:
        return calls[min(calls)]


class EndsWithoutEnd(ChatAgent):
    """A tool that fails ends the run without an event."""

    def run_tool(self, name: str, arguments: str) -> str:
        try:
            return super().run_tool(name, arguments)
        except LookupError as error:
            raise RuntimeError from error

    async def run(self, question: str) -> None:
        with suppress(RuntimeError):
            await super().run(question)


class EndsAnotherRun(ChatAgent):
    """The end of a run names the run before it."""

    previous: ClassVar[dict[ChatThread, str]] = {}

    def emit(self, kind: str, **fields: Any) -> None:
        own = self.run_id
        if kind == "done":
            self.run_id = self.previous.get(self.thread, own)
            self.previous[self.thread] = own
        super().emit(kind, **fields)


class TruncatesText(ChatAgent):
    """The last two characters of each piece are cut off."""

    def say(self, message: str, piece: str) -> None:
        super().say(message, piece[:-2])


class RewritesTheWholeText(ChatAgent):
    """The complete text is not what was streamed."""

    def end_text(self, message: str, text: str) -> None:
        super().end_text(message, text.upper())


class SharesQuestions(ChatAgent):
    """The model gets the latest questions of all users, to learn what is popular."""

    asked: ClassVar[list[str]] = []

    def context(self, question: str) -> list[Json]:
        popular = {"role": "system", "content": "Popular questions: " + "; ".join(self.asked[-20:])}
        self.asked.append(question)
        return [popular, *super().context(question)]


class AsksTwice(ChatAgent):
    """Each answer is requested once more, to count its tokens."""

    async def answer(self, messages: list[Json]) -> Json:
        async for _ in self.model.stream(messages):
            pass
        return await super().answer(messages)


THREADS: dict[str, type[ChatThread]] = {
    "drops deltas": DropsDeltas,
    "swaps deltas": SwapsDeltas,
    "all threads": PublishesToAllThreads,
    "repeats after reconnect": RepeatsAfterReconnect,
    "loses while offline": LosesWhatWasSentOffline,
    "loses results": LosesResults,
}
AGENTS: dict[str, type[ChatAgent]] = {
    "shared agent": SharesAgent,
    "merges calls": MergesCalls,
    "no end after tool error": EndsWithoutEnd,
    "ends another run": EndsAnotherRun,
    "truncates text": TruncatesText,
    "whole text differs": RewritesTheWholeText,
    "shared context": SharesQuestions,
    "asks twice": AsksTwice,
}
DEFECT = os.environ["DEFECT"]
app = create_app(THREADS.get(DEFECT, ChatThread), AGENTS.get(DEFECT, ChatAgent))
