"""Measure the load that one process carries, with real sockets and an open-loop load, which does not wait for the
server.

schedule        the load: when each run starts, and when each of its events is due
messages        the messages between an experiment and its two processes
server_process  the measured process: agents, bridge and sockets
client_process  opens the users' sockets, and judges what they read
testbed         controls both processes from the experiment
load_search     the result of one load, and the choice of the next load
capacity        the highest load that each edge carries
memory_scaling  memory of idle sockets, of threads with a history and of waiting runs, and a comparison of the edges
queueing        waiting times predicted by queueing theory, compared with the measured ones
sizing          number of workers and memory for an application's own load, and the extra cost of a shared store
"""
