"""The AG-UI backend with one mistake. The variable DEFECT chooses it; truth.toml lists what each mistake breaks."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar

import anyio
from app import AgUiAgent, Json, create_app

TEXT, CALL = "TEXT_MESSAGE_CONTENT", "TOOL_CALL_ARGS"


class ChangesEvents(AgUiAgent):
    """Subclasses send other events in the place of an event."""

    pieces = 0

    async def events(self) -> AsyncIterator[Json]:
        async with aclosing(super().events()) as events:
            async for event in events:
                self.pieces += event["type"] == TEXT
                for changed in self.change(event):
                    yield changed

    def change(self, event: Json) -> list[Json]:
        return [event]

    def is_third(self, event: Json) -> bool:
        return event["type"] == TEXT and self.pieces % 3 == 0


class DropsPieces(ChangesEvents):
    """Every third piece of a text is not sent."""

    def change(self, event: Json) -> list[Json]:
        return [] if self.is_third(event) else [event]


class RepeatsPieces(ChangesEvents):
    """Every third piece of a text is sent twice."""

    def change(self, event: Json) -> list[Json]:
        return [event, event] if self.is_third(event) else [event]


class SwapsPieces(ChangesEvents):
    """Every third piece of a text is sent after the event that follows it."""

    held: Json | None = None

    def change(self, event: Json) -> list[Json]:
        if self.is_third(event):
            self.held = event
            return []
        held, self.held = self.held, None
        return [event] if held is None else [event, held]


class TruncatesPieces(ChangesEvents):
    """The last two characters of every third piece are cut off."""

    def change(self, event: Json) -> list[Json]:
        return [event | {"delta": event["delta"][:-2]} if self.is_third(event) else event]


class LosesArguments(ChangesEvents):
    """The arguments of a call are not sent."""

    def change(self, event: Json) -> list[Json]:
        return [] if event["type"] == CALL else [event]


class MergesArguments(ChangesEvents):
    """The arguments of parallel calls are sent as those of the first call."""

    first: str = ""

    def change(self, event: Json) -> list[Json]:
        if event["type"] == "TOOL_CALL_START":
            self.first = self.first or event["toolCallId"]
        return [event | {"toolCallId": self.first} if event["type"] == CALL else event]


class LeavesCallOpen(ChangesEvents):
    """A call has no end."""

    def change(self, event: Json) -> list[Json]:
        return [] if event["type"] == "TOOL_CALL_END" else [event]


class EndsUnknownRun(ChangesEvents):
    """The end names another id than the start."""

    def change(self, event: Json) -> list[Json]:
        return [event | {"runId": f"{self.run_id}-end"} if event["type"] == "RUN_FINISHED" else event]


class EndsTwice(ChangesEvents):
    """The end of a run is sent by the agent, and again by the endpoint."""

    def change(self, event: Json) -> list[Json]:
        return [event, event] if event["type"] == "RUN_FINISHED" else [event]


class RewritesSnapshot(ChangesEvents):
    """The texts in the snapshot are not what was streamed."""

    def change(self, event: Json) -> list[Json]:
        if event["type"] != "MESSAGES_SNAPSHOT":
            return [event]
        texts = [each for each in event["messages"] if each["role"] == "assistant" and "content" in each]
        return [event | {"messages": [each | {"content": each["content"].upper()} for each in texts]}]


class ReportsAfterTheEnd(ChangesEvents):
    """An event with statistics follows the end of its run."""

    def change(self, event: Json) -> list[Json]:
        statistics = {"type": "CUSTOM", "name": "usage", "value": {"messages": len(self.messages)}}
        return [event, statistics] if event["type"] == "RUN_FINISHED" else [event]


class SharesResponse(ChangesEvents):
    """All users share one agent object. While it loads a profile, the next run begins, and gets the thoughts."""

    latest: ClassVar[SharesResponse]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.thoughts: list[Json] = []

    async def events(self) -> AsyncIterator[Json]:
        SharesResponse.latest = self
        await anyio.sleep(0.1)
        self.listener = SharesResponse.latest
        async with aclosing(super().events()) as events:
            async for event in events:
                yield event

    def change(self, event: Json) -> list[Json]:
        if event["type"] == "REASONING_MESSAGE_CONTENT":
            self.listener.thoughts.append(event)
            event = {"type": "CUSTOM", "name": "thought", "value": {}}
        thoughts, self.thoughts = self.thoughts, []
        return [*thoughts, event] if event["type"] != "RUN_STARTED" else [event, *thoughts]


class EndsWithoutEvent(AgUiAgent):
    """A tool that fails ends the run without an event."""

    async def events(self) -> AsyncIterator[Json]:
        async with aclosing(super().events()) as events:
            async for event in events:
                if "error: " in event.get("content", ""):
                    return
                yield event


class SharesQuestions(AgUiAgent):
    """The model gets the latest questions of all users, to learn what is popular."""

    asked: ClassVar[list[str]] = []

    def __init__(self, request: Json, *rest: Any) -> None:
        super().__init__(request, *rest)
        popular = {"role": "system", "content": "Popular questions: " + "; ".join(self.asked[-20:])}
        self.asked.append(request["messages"][-1]["content"])
        self.context.insert(0, popular)


DEFECTS: dict[str, type[AgUiAgent]] = {
    "drops pieces": DropsPieces,
    "repeats pieces": RepeatsPieces,
    "swaps pieces": SwapsPieces,
    "truncates pieces": TruncatesPieces,
    "loses arguments": LosesArguments,
    "merges arguments": MergesArguments,
    "call without end": LeavesCallOpen,
    "ends unknown run": EndsUnknownRun,
    "ends twice": EndsTwice,
    "snapshot differs": RewritesSnapshot,
    "event after the end": ReportsAfterTheEnd,
    "shared response": SharesResponse,
    "no end after tool error": EndsWithoutEvent,
    "shared context": SharesQuestions,
}
app = create_app(DEFECTS[os.environ["DEFECT"]])
