"""The trace of real runs: it shows what was observed, changes no byte on the wire, and agrees with the ledger."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import anyio
import pytest

from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.errors import InvalidId, UnknownName
from bridgekit.events import CRITICAL, Answer, EventType, Outcome, Payload, Receipt
from bridgekit_verify import as_committed
from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.measure import experiment
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.history import Socket
from bridgekit_verify.measure.trace_steps import NOT_CALLED, NOT_ON_PATH, NOT_REACHED, REACHED, SOCKET, LinkStep
from bridgekit_verify.measure.tracing import Trace, trace_run, trace_workload
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.validation.broken_links import BREAKAGES, Breakage
from bridgekit_verify.validation.frame_loss import HubThatLoses, with_frame_loss
from bridgekit_verify.variants import AS_COMMITTED, BROKEN, SOUND, VARIANTS, Variant, variant

on_both_backends = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])

QUESTION = "question 1"
THOUGHT = "agent_thinking"
TWO_AT_ONCE = Workload(threads=thread_ids("thread_123", 2), at_once=2)
OUTSIDE_CORE = replace(TWO_AT_ONCE, outside_core=True)
ROWS = [*VARIANTS.values(), *BROKEN.values()]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def step_of(trace: Trace, link: int, event: str = THOUGHT, request: str = QUESTION) -> LinkStep:
    return next(step for step in trace.path(request, event) if step.link == link)


# It agrees with the ledger of the same run.


def disagreements(trace: Trace) -> dict[str, str]:
    return {
        f"{key.type} {key.step} of {request}": why
        for request in trace.requests
        for key in trace.events(request)
        if (why := trace.disagreement(request, key.type, key.step or 1))
    }


def lost_before_the_cause(trace: Trace) -> list[str]:
    """Return the emitted events that ended before the link that lost them, which is impossible."""
    keys = [key for request in trace.requests for key in trace.events(request)]
    emitted = [key for key in keys if "is never emitted" not in trace.sentence(*key)]
    ends = [(key, trace.ended_at(*key), trace.cause(*key)) for key in emitted]
    return [f"{key}: {end} {why}" for key, end, why in ends if end is not None and why is not None and end < why.link]


@pytest.mark.parametrize("workload", [TWO_AT_ONCE, OUTSIDE_CORE], ids=["core", "registry"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_trace_agrees_with_the_ledger_about_every_event_of_every_variant(
    row: Variant, workload: Workload
) -> None:
    trace = await trace_workload(row, workload)
    assert sum(len(trace.events(request)) for request in trace.requests) >= len(trace.measurement.ledger) > 0
    assert disagreements(trace) == {}
    assert lost_before_the_cause(trace) == []


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
async def test_trace_agrees_with_the_ledger_about_links_that_are_broken_in_other_ways(breakage: Breakage) -> None:
    trace = await trace_workload(breakage.variant, replace(TWO_AT_ONCE, outside_core=breakage.outside_core))
    found = {event: why for event, why in disagreements(trace).items() if not event.startswith("agent_error")}
    if trace.measurement.refused is None:
        assert found == {}
    else:
        assert set(found.values()) == {"the ledger has no row for this event: the application did not start"}
    assert lost_before_the_cause(trace) == []


@pytest.mark.parametrize("family", ["starts with another id", "thread_<user>_<name>", "spaces and unicode", "1 kB"])
@pytest.mark.parametrize("name", ["fix 1", "fixes 1, 2 and 3", "as committed"])
async def test_trace_agrees_with_the_ledger_for_other_ids_sizes_and_seeds(name: str, family: str) -> None:
    workload = Workload(threads=thread_ids(family, 3), at_once=3, steps=2, runs_per_thread=2, subscribers=2)
    trace = await trace_workload(name, workload, seed=5)
    assert len(trace.measurement.ledger) == 3 * 2 * 8 * 2
    assert disagreements(trace) == {}


async def test_disagreement_is_stated_if_the_history_is_changed() -> None:
    """The test above can fail: a trace whose frames are missing no longer agrees."""
    trace = await trace_run(SOUND)
    ledger = trace.measurement.ledger
    arrivals = trace.measurement.history.arrivals
    lost = arrivals.pop(1)
    assert lost.key is not None
    assert trace.disagreement(*lost.key) == ""
    assert (trace.ended_at(*lost.key), trace.cause(*lost.key)) != (None, None)
    assert len(ledger) == 5
    trace.calls[:] = [call for call in trace.calls if call.link != 10]
    assert trace.disagreement(*lost.key).startswith("the ledger names link 10 (")


# It changes no byte on the wire.

RANDOM_OR_TIMED = re.compile(
    rb'(?<="event_id":)"[^"]*"|(?<="timestamp":)"[^"]*"|(?<="tool_call_id":)"[^"]*"|(?<="epoch":)"[^"]*"'
    rb'|(?<="execution_time_ms":)[0-9.e+-]+'
)


class FrameRecorder:
    """Records the raw frames of each socket."""

    def __init__(self) -> None:
        self.frames: dict[int, list[bytes]] = {}

    def watch(self, url: str, sockets: Sequence[Socket]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def on_frame(self, socket: Socket, frame: str | bytes) -> None:
        data = frame.encode() if isinstance(frame, str) else frame
        self.frames.setdefault(socket.number, []).append(RANDOM_OR_TIMED.sub(b"", data))

    def on_close(self, socket: Socket, code: int) -> None:
        self.frames[socket.number].append(str(code).encode())

    def without_order(self) -> dict[int, list[bytes]]:
        return {
            number: sorted(re.sub(rb'"seq":\d+', b"", each) for each in read) for number, read in self.frames.items()
        }


@on_both_backends
@pytest.mark.parametrize("name", ["fix 1", "fix 3", "as reported", "as committed", "link 3 broken", "link 5 broken"])
async def test_bytes_on_the_wire_are_equal_with_and_without_a_trace(
    name: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = Workload(threads=thread_ids("starts with another id", 3), at_once=3, steps=2, subscribers=2)
    # Unsigned run ids, because a signature has a random key.
    row = replace(variant(name), run_ids=variant("fix 1").run_ids)
    traced, plain = FrameRecorder(), FrameRecorder()
    await trace_workload(row, workload, seed=3, observer=traced)
    with monkeypatch.context() as without_instrumentation:
        without_instrumentation.setattr(experiment, "instrument", lambda row, listen, **choices: row)
        without_instrumentation.setattr(experiment, "instrumented_agent", lambda agent, listen: agent)
        await measure(row, workload, seed=3, observer=plain)
    if anyio_backend == "trio":
        # trio decides the order of concurrent tasks at random, and with it the numbers of the frames.
        assert traced.without_order() == plain.without_order()
    else:
        assert traced.frames == plain.frames
    frames = sum(len(each) for each in plain.frames.values())
    assert frames >= 12  # confirmation and close of each socket, and whatever the chain delivers
    if name in ("fix 1", "fix 3", "link 3 broken"):
        assert any(b"run_thread" in frame for each in plain.frames.values() for frame in each)


@on_both_backends
async def test_trace_is_the_same_on_both_backends() -> None:
    trace = await trace_run("link 5 broken", ["thread_a", "thread_b"])
    assert [trace.read_by(request, THOUGHT) for request in trace.requests] == [["bob-1"], ["bob-1"]]
    assert [trace.ended_at(request, THOUGHT) for request in trace.requests] == [10, None]


# What it shows.


async def test_sound_chain_passes_the_event_through_ten_links() -> None:
    trace = await trace_run(SOUND)
    assert trace.sentence(QUESTION, THOUGHT) == (
        "sound: the event agent_thinking of question 1 passes through links 1 to 10 and is read by its user, alice-0."
    )
    assert trace.sentence(QUESTION, "agent_started") == (
        "sound: the event agent_started of question 1 passes through links 1 to 5, 9 and 10 and is read by its user,"
        " alice-0."
    )
    assert [step.link for step in trace.path(QUESTION, THOUGHT)] == list(range(1, SOCKET + 1))
    assert all(step.problem == step.caught == "" for step in trace.path(QUESTION, THOUGHT))
    assert step_of(trace, 8).returned == step_of(trace, 10).returned == "sent to 1 socket"
    assert step_of(trace, SOCKET).received == "frame 2, read by alice-0"
    assert [step_of(trace, link, "agent_started").state for link in (6, 7, 8)] == [NOT_ON_PATH] * 3


async def test_chain_as_committed_shows_the_swallowed_errors_of_links_3_8_and_9() -> None:
    trace = await trace_run(AS_COMMITTED)
    assert trace.ended_at(QUESTION, THOUGHT) == 8
    emitted, bound = step_of(trace, 8), step_of(trace, 3)
    refused = "AgentWebSocketBridge.notify_agent_thinking() got an unexpected keyword argument 'metadata'"
    assert (emitted.passed_on, emitted.caught) == ("nothing", f"TypeError: {refused}")
    assert emitted.logged == f"DEBUG could not emit agent_thinking: {refused}"
    assert emitted.returned == "refused: a TypeError is logged only at level DEBUG"
    missing = "BaseAgent.set_websocket_bridge() missing 1 required positional argument: 'run_id'"
    assert bound.caught == f"TypeError: {missing}"
    assert bound.passed_on.startswith("the bridge to 0 of 1 agents")
    assert bound.logged.endswith("INFO bridge set for 0/1 agents")
    assert [step_of(trace, link).state for link in (9, 10, SOCKET)] == [NOT_REACHED] * 3
    assert trace.ended_at(QUESTION, "agent_started") == 9
    assert "no attribute 'get_thread_id_for_run'" in step_of(trace, 9, "agent_started").caught
    assert trace.sentence(QUESTION, THOUGHT).endswith(
        f"caught the error TypeError: {refused}. No user reads the event."
    )


async def test_shared_agent_sends_the_event_of_one_user_to_another() -> None:
    trace = await trace_run("link 5 broken", ["thread_a", "thread_b"])
    assert trace.sentence(QUESTION, THOUGHT) == (
        "link 5 broken: the event agent_thinking of question 1 is read by bob-1 and not by its user, alice-0, because"
        " link 5 later gave the same agent run 2 instead of run 1."
    )
    assert step_of(trace, 5).passed_on == "bridge 1, run 1, thread_a, to agent 1, which also executes question 2"
    assert step_of(trace, 7).passed_on == "holds bridge 1, run 2, thread_b"
    assert step_of(trace, SOCKET).problem == "the event belongs to alice-0 in thread_a"


@pytest.mark.parametrize(("link", "end"), [(2, 10), (4, 10)])
async def test_second_bridge_is_named_where_it_was_passed_on(link: int, end: int) -> None:
    trace = await trace_run(BROKEN[link])
    cause = trace.cause(QUESTION, THOUGHT)
    assert cause is not None
    assert (trace.ended_at(QUESTION, THOUGHT), cause.link) == (end, link)
    assert step_of(trace, 1).passed_on.startswith("bridge 1")
    assert step_of(trace, 10).received.endswith("(at the hub of another bridge)")
    assert f"link {link} gave the" in trace.sentence(QUESTION, THOUGHT)


async def test_receipt_that_reports_an_unread_event_as_sent_is_shown_beside_what_was_passed_on() -> None:
    trace = await trace_run(replace(AS_COMMITTED, run_ids=variant("fix 1").run_ids))
    step = step_of(trace, 10, "agent_started")
    assert (step.passed_on, step.returned) == ("nothing", "sent to 1 socket")
    assert trace.ended_at(QUESTION, "agent_started") == 10


async def test_dropped_frame_is_not_claimed_as_passed_on() -> None:
    trace = await trace_run(with_frame_loss(SOUND, HubThatLoses(1.0)))
    assert step_of(trace, 10).passed_on == "nothing"
    assert step_of(trace, SOCKET).state == NOT_REACHED


async def test_application_that_refuses_to_start_ends_every_event_at_startup() -> None:
    trace = await trace_run(replace(SOUND, engine=as_committed.EngineWithItsOwnBridge))
    cause = trace.cause(QUESTION, THOUGHT)
    assert cause is not None
    assert (trace.ended_at(QUESTION, THOUGHT), cause.link) == (1, 4)
    assert step_of(trace, 1).returned.startswith("raised DeterministicStartupError: link 4")
    assert [step.state for step in trace.path(QUESTION, THOUGHT)[1:]] == [NOT_REACHED] * 10
    assert trace.sentence(QUESTION, THOUGHT).startswith(
        "sound: the event agent_thinking of question 1 is never emitted: "
    )


async def test_link_before_the_end_of_an_event_is_not_called_instead_of_not_reached() -> None:
    trace = await trace_workload("as committed", OUTSIDE_CORE)
    assert trace.ended_at(QUESTION, THOUGHT) == 8
    states = [step_of(trace, link).state for link in (7, 8, 9)]
    assert states == [NOT_CALLED, REACHED, NOT_REACHED]


# What it cannot have seen, it does not claim.


class AdapterThatSwallowsInSilence(WebSocketBridgeAdapter):
    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        bridge: Any = self.bridge
        with suppress(TypeError):
            bridge.notify(event_type, payload)
        return Receipt(outcome=Outcome.REFUSED, link=8, reason="unknown")


class AdapterThatLogsAndRaises(WebSocketBridgeAdapter):
    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        try:
            raise OSError("the disk is full")
        except OSError:
            logging.getLogger(__name__).exception("failed")
            raise


class AgentThatEmitsWhileItHandlesAnError(BaseAgent):
    """Emits inside an except block: the error is the agent's, and no link on the event's path caught it."""

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        try:
            raise KeyError("of the agent")
        except KeyError:
            return super().emit(event_type, payload)


class AdapterThatLogs(WebSocketBridgeAdapter):
    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        logging.getLogger(__name__).info("emitting %s", event_type)
        return super().emit(event_type, payload)


async def test_error_that_crossed_a_link_is_caught_also_if_nothing_was_logged() -> None:
    trace = await trace_run(replace(SOUND, adapter=AdapterThatSwallowsInSilence))
    assert step_of(trace, 8).caught.startswith("TypeError: AgentWebSocketBridge.notify() takes 2 positional")
    assert step_of(trace, 8).logged == ""
    assert trace.sentence(QUESTION, THOUGHT).endswith(
        "were given, and the link logged nothing. No user reads the event."
    )


async def test_error_that_was_logged_and_raised_again_was_not_caught() -> None:
    trace = await trace_run(replace(SOUND, adapter=AdapterThatLogsAndRaises))
    step = step_of(trace, 8)
    assert (step.caught, step.returned) == ("", "raised OSError: the disk is full")
    assert step.logged == "ERROR failed"
    assert trace.cause(QUESTION, THOUGHT) is not None


async def test_error_that_a_caller_handles_is_not_attributed_to_the_link_that_logs_meanwhile() -> None:
    row = replace(SOUND, agent=AgentThatEmitsWhileItHandlesAnError, adapter=AdapterThatLogs)
    trace = await trace_run(row)
    assert step_of(trace, 8).logged == "INFO emitting agent_thinking"
    assert step_of(trace, 8).caught == ""
    assert trace.ended_at(QUESTION, THOUGHT) is None


# Log handlers of the application get what they got before.


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("bridgekit_verify"):
            self.seen.append(f"{record.levelname} {record.getMessage()}")


@pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO, logging.ERROR])
@pytest.mark.parametrize("name", ["", "bridgekit_verify"])
async def test_handlers_of_the_application_get_the_same_records_with_and_without_a_trace(
    name: str, level: int, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, handler = logging.getLogger(name), Records()
    before = logger.level, logging.getLogger("bridgekit_verify").propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        await measure(AS_COMMITTED, TWO_AT_ONCE)
        plain, handler.seen = [*handler.seen], []
        await trace_workload(AS_COMMITTED, TWO_AT_ONCE)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
    assert handler.seen == plain
    assert bool(plain) is (level != logging.ERROR)
    assert logging.getLogger("bridgekit_verify").propagate is before[1]
    assert capsys.readouterr().err == ""


async def test_two_traces_at_once_record_their_own_calls() -> None:
    traces: dict[str, Trace] = {}

    async def trace(name: str) -> None:
        traces[name] = await trace_run(name)

    async with anyio.create_task_group() as tasks:
        for name in ("as committed", "sound"):
            tasks.start_soon(trace, name)
    assert step_of(traces["as committed"], 8).logged.startswith("DEBUG could not emit")
    assert all(step.logged == "" for step in traces["sound"].path(QUESTION, THOUGHT))
    assert logging.getLogger("bridgekit_verify").level == logging.NOTSET


# The reader's own values.


@pytest.mark.parametrize("threads", ["support-42", ["東京", "thread_a b"], "x" * 1_024])
async def test_any_valid_thread_id_is_traced(threads: str | list[str]) -> None:
    trace = await trace_run("fix 3", threads)
    assert [trace.ended_at(request, str(event)) for request in trace.requests for event in CRITICAL] == [
        None for _ in trace.requests for _ in CRITICAL
    ]


@pytest.mark.parametrize(
    ("threads", "message"),
    [
        ("", "must not be empty. A thread id is a string of 1 to 1,024 bytes"),
        ("x" * 1_025, "must be at most 1,024 bytes, not 1,025"),
        (["a", "a"], "'a' occurs twice: list each thread id once"),
        ([], "must be a list of at least one thread id"),
        (["a", 7], "must be a string, not int"),
        ("a\nb", r"must not contain the control character '\\n'"),
    ],
)
async def test_invalid_thread_ids_are_refused_with_a_message(threads: Any, message: str) -> None:
    with pytest.raises((InvalidId, InvalidParameter), match=message):
        await trace_run(SOUND, threads)


async def test_unknown_chain_run_event_and_step_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="no variant is called 'perfect'"):
        await trace_run("perfect")
    trace = await trace_run(SOUND, steps=2)
    with pytest.raises(UnknownName, match="no run of this trace is called 'question 2'; known: 'question 1'"):
        trace.path("question 2", THOUGHT)
    with pytest.raises(UnknownName, match="'agent_thinking, step 1', "):
        trace.path(QUESTION, "agent_dreaming")
    with pytest.raises(UnknownName, match="'agent_thinking, step 3'"):
        trace.path(QUESTION, THOUGHT, 3)
    assert trace.ended_at(QUESTION, THOUGHT, 2) is None


async def test_table_has_a_row_for_each_link_and_the_socket() -> None:
    table = (await trace_run(AS_COMMITTED)).table(QUESTION, THOUGHT)
    assert list(table.columns) == ["link", "name", "received", "passed on", "caught", "logged", "returned"]
    assert list(table["link"]) == [*range(1, 11), ""]
    assert table["received"].iloc[-1] == NOT_REACHED
