"""A process's clocks and memory, and what goes over its pipes."""

from __future__ import annotations

import gc
import os
import resource
from pathlib import Path

import msgspec
import pytest

from bridgekit_verify.capacity.agents import Pauses
from bridgekit_verify.capacity.pipe import Ask, Clocks, Connect, Hold, Said, files_at_most, resident_kib
from tests.verify.capacity.loads import step

MEBIBYTE = 1_048_576


def test_shares_are_of_the_time_between_two_looks() -> None:
    first, last = Clocks(cpu=1.0, waited=0.0, time=10.0), Clocks(cpu=2.0, waited=1.0, time=14.0)
    assert first.shares_until(last) == (0.25, 0.25)


def test_work_shows_on_the_clocks() -> None:
    before = Clocks.read()
    while (after := Clocks.read()).cpu < before.cpu + 0.05:
        pass
    share, kept_waiting = before.shares_until(after)
    assert 0 < share <= 1.01
    assert 0 <= kept_waiting <= 1.01


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="elsewhere only the highest ever is to be had")
def test_memory_that_is_taken_shows_and_memory_that_is_given_back_does_not() -> None:
    before = resident_kib()
    taken = bytearray(os.urandom(MEBIBYTE)) * 64
    assert resident_kib() >= before + len(taken) // 1_024 * 0.9
    del taken
    assert resident_kib() < before + 32 * 1_024


def test_as_many_files_may_be_open_as_the_system_lets_this_process_have() -> None:
    assert files_at_most() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0


def test_pauses_are_timed_from_the_collectors_begin_to_its_end() -> None:
    pauses = Pauses()
    gc.callbacks.append(pauses.note)
    gc.collect()
    gc.callbacks.remove(pauses.note)
    assert len(pauses.seconds) == 1
    assert pauses.seconds[0] > 0


@pytest.mark.parametrize("sent", [Hold(1, 2), Connect(80, b"key", 0, 5)])
def test_question_arrives_as_it_was_asked(sent: Ask) -> None:
    asked: Ask = msgspec.json.decode(msgspec.json.encode(sent), type=Ask)
    assert asked == sent


def test_answer_arrives_as_it_was_given_and_fits_into_a_line() -> None:
    answer = step(1_000).heard
    line = msgspec.json.encode(answer)
    assert len(line) < 2_000
    assert msgspec.json.decode(line, type=Said) == answer
