"""The agents of a load: each says an event when it is due, or as soon as it can after that."""

from __future__ import annotations

import time
from typing import Final

import anyio

from bridgekit.chain.collaborators import PythonTools
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.errors import BridgekitError
from bridgekit_verify.capacity.schedule import EVENTS_A_STEP, Wave
from bridgekit_verify.measure.workload import AGENT

__all__ = ["Pauses", "Waves"]

TEXT: Final = "what a model may say in one thought, or a tool may find, in a sentence of usual length"


class Waves:
    """The runs under way, by request: which wave each is of, and when it was due to begin on this loop's clock."""

    def __init__(self) -> None:
        self.begun: dict[str, tuple[Wave, float]] = {}
        self.most = 0
        self.failed = 0

    def agents(self) -> type[BaseAgent]:
        """An agent that says each event when it is due, or as soon as it can after that."""
        begun = self.begun

        class PacedAgent(BaseAgent):
            async def execute(self, context: RunContext) -> object:
                request = context.request
                wave, begins = begun[request]
                pause = wave.plan.pause_seconds
                for step in range(1, wave.plan.steps + 1):
                    thought = begins + (EVENTS_A_STEP * (step - 1) + 1) * pause
                    await _until(thought, pause)
                    await self.emit_thinking(f"{request}: {TEXT}", step_number=step)
                    await _until(thought + pause, pause)
                    await self.use_tool("look_up", request=request, step=step)
                await _until(begins + (wave.plan.events - 1) * pause, pause)
                return {"request": request, "answer": TEXT}

        return PacedAgent

    def tools(self) -> PythonTools:
        """A tool that takes its time."""

        async def look_up(request: str, step: int) -> dict[str, object]:
            wave, begins = self.begun[request]
            await _until(begins + EVENTS_A_STEP * step * wave.plan.pause_seconds, wave.plan.pause_seconds)
            return {"request": request, "step": step, "found": TEXT}

        return PythonTools({"look_up": look_up})

    async def run(self, application: Application, wave: Wave, number: int, begins: float) -> None:
        """One run, from its request to its end."""
        request, owned = wave.request(number), wave.owner_of(number)
        self.begun[request] = wave, begins
        self.most = max(self.most, len(self.begun))
        try:
            await application.supervisor.run(
                agent_name=AGENT, thread_id=owned.thread_id, user_id=owned.user_id, request=request
            )
        except BridgekitError:
            self.failed += 1
        finally:
            del self.begun[request]


class Pauses:
    """How long the collector took, each time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._since = 0.0

    def note(self, phase: str, info: dict[str, int]) -> None:
        """Called by the collector when it begins and when it is done."""
        if phase == "start":
            self._since = time.perf_counter()
        else:
            self.seconds.append(time.perf_counter() - self._since)


async def _until(moment: float, pause: float) -> None:
    """Wait until it is due. An agent without pauses says all it has to say in one breath."""
    if pause:
        await anyio.sleep_until(moment)
