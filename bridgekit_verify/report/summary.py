"""The first screen in words and numbers: the answer, the risks and the order of repairs. No rendering.

Each sentence is computed from the tables of notebook 10. A sentence about a table that is missing says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bridgekit_verify.report.drop_rates import (
    AS_COMMITTED,
    AS_REPORTED,
    BEFORE,
    FIXES,
    REPAIRS,
    DropTables,
    Fate,
    Kind,
    Subset,
)

__all__ = [
    "Action",
    "Answer",
    "Risk",
    "actions",
    "answer",
    "of",
    "risks",
    "routing_note",
    "scope",
]

NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NOT_MEASURED: Final = "Unknown: the drop rates were not measured."
REPAIR_TITLES: Final = {
    "agent per run": "Create an agent for each run",
    "thread carried": "Carry the thread with the run",
    "connection bound": "Assign each connection to its thread",
    "link 8 call": "Call the bridge with the arguments it takes",
}
"""What to do for each repair, in words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to "Do the agents' events reach the user?" in two sentences."""

    verdict: Literal["yes", "no", "unknown"]
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.first} {self.second}".rstrip()


@dataclass(frozen=True, slots=True)
class Risk:
    """One risk, with the condition under which it occurs."""

    kind: Literal["leak", "loss", "undetected"]
    title: str
    when: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Action:
    """One repair in the recommended order."""

    order: int
    name: str
    purpose: str
    size: str
    gain: int
    """Events delivered by this repair in addition to those before it."""
    fate: Fate


def of(k: int, n: int) -> str:
    """Return counts as text, "58 of 60"."""
    return f"{k:,} of {n:,}"


def number(count: int) -> str:
    """Return a count as a word up to ten, as digits above."""
    return NUMBERS[count] if count < len(NUMBERS) else f"{count:,}"


def answer(tables: DropTables) -> Answer:
    """Answer the question of the page from the code as committed, before and after the fixes and the repairs."""
    before = tables.step(AS_COMMITTED)
    if before is None or not before.fate.expected:
        return Answer("unknown", NOT_MEASURED, _repairs_sentence(tables))
    found = before.fate
    n = f"{found.expected:,}"
    if found.complete:
        start = f"Yes: all {n} events reach their user"
    elif found.dropped:
        reach = "none reaches its" if not found.delivered else f"only {found.delivered:,} reach their"
        start = f"No: of {n} events, {reach} user" + (
            f", and {found.leaked:,} reach another one" if found.leaked else ""
        )
    else:
        start = f"No: all {n} events reach their user, and {found.leaked:,} reach another one as well"
    return Answer(
        "yes" if found.complete else "no", f"{start}{_fixes_clause(tables, found)}", _repairs_sentence(tables)
    )


def _fixes_clause(tables: DropTables, before: Fate) -> str:
    """Return the end of the first sentence: what the audit's fixes change on the code as committed."""
    fixes = tables.fixes(AS_COMMITTED)
    if not fixes:
        return "."
    if all((step.fate.delivered, step.fate.leaked) == (before.delivered, before.leaked) for step in fixes):
        return ", and none of the audit's three fixes changes that, alone or together."
    best = max(fixes, key=lambda step: (step.fate.delivered, -step.fate.leaked))
    if best.fate.delivered <= before.delivered:
        return ", and none of the audit's three fixes delivers more, alone or together."
    leaked = f", and {best.fate.leaked:,} reach another one" if best.fate.leaked else ""
    return (
        f"; of the audit's fixes, {FIXES[best.name]} does most: {of(best.fate.delivered, best.fate.expected)}{leaked}."
    )


def _repairs_sentence(tables: DropTables) -> str:
    """Return the second sentence: what the repairs deliver together, and what happens without the first of them."""
    if not tables.repairs:
        return "The repairs were not measured."
    last = tables.repairs[-1]
    start = f"In the rebuilt chain, {number(len(tables.repairs))} small repairs deliver"
    if last.complete:
        start += f" all {last.expected:,}"
    else:
        start += f" {of(last.delivered, last.expected)}"
        start += f" and show {last.leaked:,} to another user" if last.leaked else ""
    without = tables.subset(*REPAIRS[1:])
    if without is None or not without.leaked:
        return f"{start}."
    return f"{start}; without the first one, the others show {without.leaked:,} to the wrong user."


def risks(tables: DropTables) -> tuple[Risk, ...]:
    """Return the three risks, the most severe first: a leak, then a loss, then a failure that nobody detects."""
    return _leak(tables), _loss(tables), _undetected(tables)


def _leak(tables: DropTables) -> Risk:
    before, fixes = tables.step(AS_COMMITTED), tables.fixes(AS_COMMITTED)
    leaking = [step for step in fixes if step.fate.leaked]
    subsets = [subset for subset in tables.subsets if subset.leaked]
    sentences = []
    if before is None or not tables.subsets:
        when = "unknown"
    elif before.fate.leaked:
        when = "today"
        sentences.append(f"{of(before.fate.leaked, before.fate.expected)} events reach another user.")
    elif leaking:
        when = f"after {FIXES[leaking[0].name]}"
    elif subsets:
        when = "after some of the repairs"
    else:
        when = "not observed"
    if subsets:
        worst = max(subsets, key=lambda subset: subset.leaked)
        sentences.append(f"{of(worst.leaked, worst.expected)} events reach another user {_made(worst)}.")
    sentences += _routing_leaks(tables)
    return Risk("leak", "Leak: another user reads it", when, tuple(sentences) or ("No leak was measured.",))


def _made(subset: Subset) -> str:
    """Return which repairs a subset contains, by their numbers in the recommended order."""
    made = [str(order) for order, name in enumerate(REPAIRS, 1) if name in subset.repairs]
    left_out = [str(order) for order, name in enumerate(REPAIRS, 1) if name not in subset.repairs]
    if not made:
        return "without any repair"
    done = f"after {_plural('repair', made)}"
    return f"{done} without {_plural('repair', left_out)}" if left_out else done


def _plural(noun: str, members: Sequence[str]) -> str:
    return f"{noun}{'s' if len(members) > 1 else ''} {_list(members)}"


def _list(members: Sequence[str]) -> str:
    return f"{', '.join(members[:-1])} and {members[-1]}" if len(members) > 1 else "".join(members)


def _routing_leaks(tables: DropTables) -> list[str]:
    """Return the leaks of the audit's own fixes on the chain as reported."""
    leaking = [step for step in tables.fixes(AS_REPORTED) if step.fate.leaked]
    if not leaking:
        return []
    first = leaking[0]
    where = _list([f"“{kind.name}” ({of(kind.leaked, kind.expected)})" for kind in first.leaking])
    return [
        f"If routing were the only defect, {FIXES[first.name]} would leak in {len(first.leaking)} of"
        f" {len(first.kinds)} kinds of thread id: {where}."
    ]


def _loss(tables: DropTables) -> Risk:
    before = tables.step(AS_COMMITTED)
    title = "Loss: the user does not get it"
    if before is None:
        return Risk("loss", title, "unknown", (NOT_MEASURED,))
    found = before.fate
    sentences = [f"{of(found.dropped, found.expected)} events do not reach their user."]
    parts = [
        f"{FIXES[name]} {of(step.fate.dropped, step.fate.expected) if step.fate.dropped else 'none'}"
        for name in ("fix 1", "fixes 1 and 2 with the method", "fix 3")
        if (step := tables.step(AS_REPORTED, name))
    ]
    if parts:
        sentences.append(f"Dropped if routing were the only defect: with {_list(parts)}.")
    return Risk("loss", title, "today" if found.dropped else "not observed", tuple(sentences))


def _undetected(tables: DropTables) -> Risk:
    title = "Undetected: sent, but not read"
    before = tables.step(AS_COMMITTED)
    steps = [step for step in (before, *tables.fixes(AS_COMMITTED)) if step]
    if not steps:
        return Risk("undetected", title, "unknown", (NOT_MEASURED,))
    # Of equals, the last one: it has the most fixes.
    worst = max(reversed(steps), key=lambda step: step.false_success)
    if not worst.false_success:
        return Risk("undetected", title, "not observed", ("No event was reported as sent that its user did not read.",))
    first = next(step for step in steps if step.false_success)
    when = "today" if first.name == BEFORE else f"after {FIXES[first.name]}"
    within = "as committed" if worst.name == BEFORE else f"with {FIXES[worst.name]} in place"
    false = of(worst.false_success, worst.fate.expected)
    sentence = (
        f"{within[0].upper()}{within[1:]}, {false} events are reported as sent although their user does not read them."
    )
    return Risk("undetected", title, when, (sentence, "A dashboard that counts sent events shows them as delivered."))


def actions(tables: DropTables) -> tuple[Action, ...]:
    """Return the repairs in the recommended order, with size and gain."""
    delivered = [0, *(repair.delivered for repair in tables.repairs)]
    if before := tables.step(AS_COMMITTED):
        delivered[0] = before.fate.delivered
    return tuple(
        Action(
            repair.order,
            REPAIR_TITLES.get(repair.name, repair.name),
            repair.purpose,
            size_text(repair.lines_removed, repair.lines_added),
            repair.delivered - earlier,
            repair,
        )
        for repair, earlier in zip(tables.repairs, delivered, strict=False)
    )


def size_text(removed: int, added: int) -> str:
    """Return the size of a change in lines, such as "2 lines become 1"."""
    if not removed or not added:
        count, verb = (added, "added") if not removed else (removed, "removed")
        return f"{count:,} {'line' if count == 1 else 'lines'} {verb}"
    return f"{removed:,} {'line becomes' if removed == 1 else 'lines become'} {added:,}"


def routing_note(tables: DropTables) -> str:
    """Return what the audit's fixes would do in place of the repair of routing; "" if that was not measured."""
    others = [alternative for alternative in tables.routing if alternative.name in FIXES]
    enough = [FIXES[each.name] for each in others if each.complete]
    short = [
        f"{FIXES[each.name]} (drops {each.dropped:,}{f', leaks {each.leaked:,}' if each.leaked else ''})"
        for each in others
        if not each.complete
    ]
    parts = []
    if enough:
        parts.append(f"In place of repair 2, {_list(enough)} would deliver everything as well.")
    if short:
        parts.append(f"Not enough in its place: {_list(short)}.")
    return " ".join(parts)


def scope(tables: DropTables) -> tuple[str, ...]:
    """Return what was measured for the first screen, one sentence each."""
    before = tables.step(AS_COMMITTED)
    if before is None:
        return (NOT_MEASURED,)
    in_use = _used(before.kinds)
    sentences = [
        f"Each chain ran with {len(before.kinds)} kinds of thread id: {in_use} in use and"
        f" {len(before.kinds) - in_use} stress tests."
    ]
    if tables.subsets:
        enough = [subset for subset in tables.subsets if subset.complete]
        sentences.append(
            f"Of the {len(tables.subsets)} combinations of the {number(len(REPAIRS))} repairs,"
            f" {number(len(enough))} {'delivers' if len(enough) == 1 else 'deliver'} every event without a leak"
            + (": all four together." if [subset.repairs for subset in enough] == [frozenset(REPAIRS)] else ".")
        )
    return tuple(sentences)


def _used(kinds: Sequence[Kind]) -> int:
    return sum(kind.in_use for kind in kinds)
