"""The first screen in words and numbers, not yet rendered: the answer, the risks and the order of repairs.

Each sentence is computed from the tables of notebook 10, or states that the table is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final, Literal

from bridgekit_verify.measure.drops import EventCounts
from bridgekit_verify.measure.wording import listed
from bridgekit_verify.report.drop_tables import (
    AS_COMMITTED,
    AS_REPORTED,
    BEFORE,
    FIXES,
    REPAIRS,
    DropTables,
    Routing,
    Step,
    Subset,
)
from bridgekit_verify.report.findings import Finding

__all__ = [
    "Action",
    "Answer",
    "Risk",
    "actions",
    "answer",
    "of",
    "order_note",
    "risks",
    "routing_note",
    "scope",
]

NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NOT_MEASURED: Final = "Unknown: the drop rates were not measured."
INSTRUCTIONS: Final = {
    "agent per run": "create an agent for each run",
    "thread carried": "carry the thread with the run",
    "connection bound": "assign each connection to its thread",
    "link 8 call": "call the bridge with the arguments that it takes",
}
"""The instruction for each repair, in words."""
AFTER_FIXES: Final = "after the audit's fixes"


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
    instruction: str
    """The instruction in words, or "" for a repair that is not one of `REPAIRS`."""
    links: str
    """The numbers of the links that the repair changes."""
    effect: str
    size: str
    gain: int
    """How many more events are delivered with this repair than with only the earlier repairs."""
    after: EventCounts
    """The counts of events after this repair and all earlier repairs."""


def of(k: int, n: int) -> str:
    """Return counts as text, "58 of 60"."""
    return f"{k:,} of {n:,}"


def number(count: int) -> str:
    """Return a count as a word up to ten, and in digits above ten."""
    return NUMBERS[count] if count < len(NUMBERS) else f"{count:,}"


def answer(tables: DropTables) -> Answer:
    """Answer the page's question from the events of the code as committed, before and after the fixes and repairs."""
    before = tables.step(AS_COMMITTED)
    if before is None or not before.total.expected:
        return Answer("unknown", NOT_MEASURED, _repairs_sentence(tables))
    found = before.total
    n = f"{found.expected:,}"
    if found.complete:
        start = f"all {n} test events reach their user"
    elif found.dropped:
        start = (
            f"only {found.delivered:,} of {n} test events reach their user"
            if found.delivered
            else f"none of {n} test events reaches its user"
        )
        start += f", and {found.leaked:,} reach another user" if found.leaked else ""
    else:
        start = f"all {n} test events reach their user, and {found.leaked:,} reach another user as well"
    first = f"In the rebuilt chain, {start}{_fixes_clause(tables, found)}"
    return Answer("yes" if found.complete else "no", first, _repairs_sentence(tables))


def _fixes_clause(tables: DropTables, before: EventCounts) -> str:
    """Return the end of the answer's first sentence: the effect of the audit's fixes on the code as committed."""
    fixes = tables.fixes(AS_COMMITTED)
    if not fixes:
        return "."
    if all((step.total.delivered, step.total.leaked) == (before.delivered, before.leaked) for step in fixes):
        return ", and none of the audit's three fixes changes that."
    best = max(fixes, key=lambda step: (step.total.delivered, -step.total.leaked))
    if best.total.delivered <= before.delivered:
        return ", and none of the audit's three fixes delivers more events."
    leaked = f" and leaks {best.total.leaked:,}" if best.total.leaked else ""
    delivered = of(best.total.delivered, best.total.expected)
    return f". Of the audit's fixes, {FIXES[best.name]} delivers most: {delivered} events{leaked}."


def _repairs_sentence(tables: DropTables) -> str:
    """Return the answer's second sentence: the delivery with all repairs, and the leaks without repair 1."""
    if not tables.repairs:
        return "The repairs were not measured."
    last = tables.repairs[-1]
    start = f"Together, {number(len(tables.repairs))} repairs deliver"
    if last.complete:
        start += f" all {last.expected:,} events"
    else:
        start += f" {of(last.delivered, last.expected)} events"
        start += f" and leak {last.leaked:,} to another user" if last.leaked else ""
    without = tables.subset(*REPAIRS[1:])
    if without is None or not without.leaked:
        return f"{start}."
    return f"{start}. Without repair 1, the other repairs leak {without.leaked:,} events to another user."


def risks(tables: DropTables) -> tuple[Risk, ...]:
    """Return the three risks, the most severe first: a leak, then a loss, then a failure that is not detected."""
    return _leak(tables), _loss(tables), _undetected(tables)


def _leak(tables: DropTables) -> Risk:
    before, fixes = tables.step(AS_COMMITTED), tables.fixes(AS_COMMITTED)
    leaking = [step for step in fixes if step.total.leaked]
    subsets = [subset for subset in tables.subsets if subset.leaked]
    sentences = []
    if before is None or not tables.subsets:
        when = "unknown"
    elif before.total.leaked:
        when = AS_COMMITTED
        sentences.append(f"{of(before.total.leaked, before.total.expected)} events reach another user.")
    elif leaking:
        when = _after(leaking)
    elif subsets:
        when = "after some of the repairs"
    else:
        when = "not observed"
    if subsets:
        worst = max(subsets, key=lambda subset: subset.leaked)
        sentences.append(f"{of(worst.leaked, worst.expected)} events reach another user {_made(worst)}.")
    sentences += _routing_leaks(tables)
    return Risk("leak", "Leak: read by another user", when, tuple(sentences) or ("No leak was measured.",))


def _after(steps: Sequence[Step]) -> str:
    """Return the clause that names the fixes after which a risk occurs."""
    return f"after {FIXES[steps[0].name]}" if len(steps) == 1 else AFTER_FIXES


def _made(subset: Subset) -> str:
    """Return which repairs a subset contains, by their numbers in the recommended order."""
    made = [str(order) for order, name in enumerate(REPAIRS, 1) if name in subset.repairs]
    left_out = [str(order) for order, name in enumerate(REPAIRS, 1) if name not in subset.repairs]
    if not made:
        return "without any repair"
    done = f"after {_plural('repair', made)}"
    return f"{done} without {_plural('repair', left_out)}" if left_out else done


def _plural(noun: str, members: Sequence[str]) -> str:
    return f"{noun}{'s' if len(members) > 1 else ''} {listed(members)}"


def _routing_leaks(tables: DropTables) -> list[str]:
    """Return a sentence about the first fix that leaks on the chain as reported, or no sentence if no fix leaks."""
    leaking = [step for step in tables.fixes(AS_REPORTED) if step.total.leaked]
    if not leaking:
        return []
    first = leaking[0]
    where = listed([f"'{kind.name}' ({of(kind.leaked, kind.expected)} events)" for kind in first.leaking])
    return [
        f"With only link 9 broken, {FIXES[first.name]} leaks events for {len(first.leaking)} of"
        f" {len(first.kinds)} kinds of thread id: {where}."
    ]


def _loss(tables: DropTables) -> Risk:
    before = tables.step(AS_COMMITTED)
    title = "Loss: not read by its user"
    if before is None:
        return Risk("loss", title, "unknown", (NOT_MEASURED,))
    found = before.total
    sentences = [f"{of(found.dropped, found.expected)} events do not reach their user."]
    parts: list[str] = []
    for name in ("fix 1", "fixes 1 and 2 with the method", "fix 3"):
        if step := tables.step(AS_REPORTED, name):
            # Only the first count names the events, so that the sentence stays short.
            count, none = of(step.total.dropped, step.total.expected), "none" if parts else "no event"
            dropped = (count if parts else f"{count} events") if step.total.dropped else none
            parts.append(f"{FIXES[name]} {'drop' if name.startswith('fixes') else 'drops'} {dropped}")
    if parts:
        sentences.append(f"With only link 9 broken, {listed(parts)}.")
    return Risk("loss", title, AS_COMMITTED if found.dropped else "not observed", tuple(sentences))


def _undetected(tables: DropTables) -> Risk:
    title = "Undetected: reported as sent, but not read"
    before = tables.step(AS_COMMITTED)
    steps = [step for step in (before, *tables.fixes(AS_COMMITTED)) if step]
    if not steps:
        return Risk("undetected", title, "unknown", (NOT_MEASURED,))
    # Of the steps with the same count, choose the last, which has the most fixes.
    worst = max(reversed(steps), key=lambda step: step.false_success)
    if not worst.false_success:
        return Risk("undetected", title, "not observed", ("Users read every event that was reported as sent.",))
    false = [step for step in steps if step.false_success]
    when = AS_COMMITTED if false[0].name == BEFORE else _after(false)
    within = "As committed" if worst.name == BEFORE else f"With {FIXES[worst.name]} in place"
    counts = of(worst.false_success, worst.total.expected)
    sentence = f"{within}, {counts} events are reported as sent although their user does not read them."
    return Risk(
        "undetected",
        title,
        when,
        (sentence, "A dashboard that counts sent events therefore shows too many deliveries."),
    )


def actions(tables: DropTables) -> tuple[Action, ...]:
    """Return the repairs in the recommended order, with effect, size and gain."""
    delivered = [0, *(repair.delivered for repair in tables.repairs)]
    if before := tables.step(AS_COMMITTED):
        delivered[0] = before.total.delivered
    return tuple(
        Action(
            repair.order,
            repair.name,
            INSTRUCTIONS.get(repair.name, ""),
            repair.links,
            repair.purpose,
            size_text(repair.lines_removed, repair.lines_added),
            repair.delivered - earlier,
            repair,
        )
        for repair, earlier in zip(tables.repairs, delivered, strict=False)
    )


def size_text(removed: int, added: int) -> str:
    """Return the size of a change in lines, such as "-2 +1"."""
    return f"-{removed:,} +{added:,}"


def order_note(tables: DropTables) -> str:
    """Return in how many orders of the repairs no event leaks, or "" if not all combinations were measured."""
    if len(tables.subsets) != 2 ** len(REPAIRS):
        return ""
    leaking = {subset.repairs for subset in tables.subsets if subset.leaked}
    orders = list(permutations(REPAIRS))
    safe = sum(not any(frozenset(order[:n]) in leaking for n in range(len(order) + 1)) for order in orders)
    counts = f"In {safe} of {len(orders)} orders of the repairs, no event leaks."
    if leaking == {frozenset(REPAIRS[1:])}:
        return f"Do not make repair 1 last: without repair 1, the other repairs leak events. {counts}"
    return counts


def routing_note(tables: DropTables, lifecycle: Finding | None = None) -> str:
    """Return which of the audit's fixes can replace repair 2, and which cannot, or "" if this was not measured.

    `lifecycle` is the finding about Fix 3 over the lifetime of a run, which limits a recommendation of Fix 3.
    """
    others = [alternative for alternative in tables.routing if alternative.name in FIXES]
    enough = [FIXES[each.name] for each in others if each.complete]
    incomplete = [each for each in others if not each.complete]
    short = [f"{FIXES[each.name]} {_dropping(each, whole=not n)}" for n, each in enumerate(incomplete)]
    parts = []
    if enough:
        chosen = ", or ".join(enough)
        parts.append(f"{chosen}{',' if len(enough) > 1 else ''} can replace repair 2 in this test.")
        if FIXES["fix 3"] in enough and lifecycle is not None and lifecycle.verdict == "does not hold":
            parts.append(f"But {lifecycle.answer}")
    if short:
        parts.append(f"In place of repair 2, {'; '.join(short)}.")
    return " ".join(parts)


def _dropping(counts: Routing, *, whole: bool) -> str:
    """Return a clause such as "drops 460 of 780 events and leaks 40 of them".

    If not `whole`, the clause states only how many events are dropped, and not of how many.
    """
    plural = counts.name.startswith("fixes")
    number_dropped = f"{of(counts.dropped, counts.expected)} events" if whole else f"{counts.dropped:,}"
    dropped = f"{'drop' if plural else 'drops'} {number_dropped}"
    if not counts.leaked:
        return dropped
    members = "of them" if counts.leaked == counts.dropped_and_leaked else "events"
    return f"{dropped} and {'leak' if plural else 'leaks'} {counts.leaked:,} {members}"


def scope(tables: DropTables) -> tuple[str, ...]:
    """Return sentences for the first screen that state what was measured."""
    before = tables.step(AS_COMMITTED)
    if before is None:
        return (NOT_MEASURED,)
    kinds = len(before.kinds)
    documented = sum(kind.documented for kind in before.kinds)
    sentences = [
        f"Each chain ran with {kinds} kinds of thread id: {documented} documented in the audit or the backend's public"
        f" history, and {kinds - documented} stress kinds."
    ]
    if product := _product(tables, before.total.expected, kinds):
        sentences.append(product)
    sentences.append(
        "The kinds of thread id are chosen, not sampled, so sums over the kinds do not describe production."
    )
    if tables.subsets:
        enough = [subset for subset in tables.subsets if subset.complete]
        sentences.append(
            f"Of the {len(tables.subsets)} combinations of the {number(len(REPAIRS))} repairs,"
            f" {number(len(enough))} {'delivers' if len(enough) == 1 else 'deliver'} every event without a leak"
            + (": all four together." if [subset.repairs for subset in enough] == [frozenset(REPAIRS)] else ".")
        )
    return tuple(sentences)


def _product(tables: DropTables, expected: int, kinds: int) -> str:
    """Return the number of events as a product of the load's parameters, or "" if the notebook does not state them."""
    parameters = tables.notebook.parameters if tables.notebook else {}
    users, runs = parameters.get("THREADS"), parameters.get("RUNS")
    if not isinstance(users, int) or not isinstance(runs, int) or not users * runs * kinds:
        return ""
    events, rest = divmod(expected, kinds * users * runs)
    if rest:  # A kind of thread id that the reader defines has its own number of users.
        return ""
    return f"{expected:,} events = {kinds} kinds × {users:,} users × {runs:,} runs × {events} events."
