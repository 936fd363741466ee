"""Defines the terms of the page and the columns of results.csv in plain words."""

from __future__ import annotations

from typing import Final

__all__ = ["COLUMNS", "OTHER_COLUMNS", "TERMS"]

TERMS: Final = {
    "agent": "A program that works on a user's request with a language model and tools.",
    "run": "One execution of an agent for one request. Each run has an id, the run id.",
    "thread": "One conversation of a user. A run belongs to one thread, and each thread has one owner.",
    "event": "A message that reports what an agent does: it starts, thinks, uses a tool, completes or fails.",
    "frame": "The bytes of one event on the network.",
    "socket": "An open WebSocket connection between a user's page and the server.",
    "bridge": "The part of the server that receives an agent's events and passes them on to the user's sockets.",
    "link": "One step from a user's request to the user's sockets. The audit lists nine links. Link 10, from the hub to"
    " the sockets, is not in the audit.",
    "chain": "All links together, as one server runs them.",
    "routing": "Finding the thread of an event, so that the event goes to the right user.",
    "hub": "The part of the server that stores which sockets belong to each thread.",
    "delivered": "Read by a socket of the event's own user and thread. If the user has several such sockets, the"
    " event counts once for each socket.",
    "dropped": "Not delivered to its own user: lost, or read by another user only.",
    "lost": "Not delivered, and not read by another user.",
    "leaked": "Read by a socket of another user.",
    "misrouted": "Read by a socket of another user or of another thread.",
    "reported as sent": "The agent received a receipt with the outcome 'sent'. The receipt is false if the user did"
    " not read the event.",
    "as committed": "The code of the audited backend at the audited commit, rebuilt with the defects that appear"
    " when the code runs.",
    "as reported": "The chain as the audit describes it: links 1 to 8 work, and only link 9 is broken.",
    "sound": "Without a known defect. The sound chain is the chain with every defect repaired.",
    "fix": "One of the three changes that the audit proposes.",
    "repair": "One of the four changes that together make the rebuilt code as committed deliver every event.",
    "as worded, but insufficient": "The audit's statement is true, but its conclusion is wrong when the code runs.",
    "defect": "A mistake in the code.",
    "fault": "A failure of the environment: of a network, a process or a server.",
    "experiment": "A measurement for which a working link was broken on purpose.",
    "kind of thread id": "A pattern of thread ids. Some kinds occur in the audit or in the backend's public history."
    " The other kinds are stress kinds, which are chosen to be difficult.",
    "95 % interval": "The range that contains the true rate in about 95 of 100 random samples of this size (Wilson's"
    " interval).",
    "log": "The events of a thread that the server retains. A client that reconnects gets missed events from the log.",
    "gap": "A message that tells a client which events it will not get, and why.",
    "lost silently": "Lost, and the client received no gap: a silent loss.",
    "edge": "The part of the server that serves the sockets. The native edge requires uvicorn on asyncio; the ASGI"
    " edge works with any ASGI server.",
    "checker": "The code that compares the emitted events with the events that sockets read.",
    "ledger": "A table that states, for each expected event and socket, whether the event arrived and, if not,"
    " which link dropped it.",
    "probe": "A test of one link alone.",
    "property": 'A requirement that "bridgekit check" tests in a backend, such as "right user". A property holds,'
    " is broken, or is unknown.",
    "unknown": "Not measured, or the measurement gave no result. An unknown result never counts as a success.",
}

COLUMNS: Final = {
    "notebook": "the notebook that shows the table",
    "table": "the table's name",
    "chain": 'the chain that was measured: "as committed" or "as reported"',
    "variant": "the combination of sound and broken parts that was measured",
    "step": "the fix or repair that was applied",
    "thread ids": "the kind of thread id",
    "documented": "whether this kind of thread id occurs in the audit or the public history; empty for your own ids",
    "fault": "the failure of the environment that was injected",
    "expected": "events that should reach a socket, computed from the workload's parameters",
    "delivered": "events that reached a socket of their own user and thread",
    "dropped": "events that did not reach a socket of their own user and thread: lost or leaked",
    "lost": "dropped events that no other user read",
    "leaked": "events that another user read",
    "misrouted": "frames read at a socket of another thread or user",
    "false success": "events reported as sent that their user did not read",
    "links": "numbers of the links that a repair changes",
    "order": "position of a repair in the recommended order",
    "repair": "the name of the repair",
    "lines removed": "lines that a repair removes from the rebuilt chain",
    "lines added": "lines that a repair adds to the rebuilt chain",
}
"""The columns that come first in results.csv, each with its meaning."""

OTHER_COLUMNS: Final = {
    "dropped at other links": "events dropped at a link other than the one that the notebook examines",
    "delivered %": "share of the expected events that were delivered, in percent",
    "from %": "lower end of the 95 % interval of a sampled rate, in percent",
    "to %": "upper end of the 95 % interval of a sampled rate, in percent",
    "runs at once": "how many runs were active at once",
    "edge": "the part that serves the sockets: native or ASGI",
    "events/s": "events per second of the load",
    "predicted": "the number or the time that a formula predicts",
    "no socket": "events whose user had no open socket",
    "CPU µs/event": "CPU time of the server per event, in microseconds",
    "kinds": "how many kinds of thread id were measured",
    "kinds that lose or leak": "how many kinds of thread id have a lost or leaked event",
}
"""Columns that results.csv contains only if they are among the most frequent ones, each with its meaning."""
