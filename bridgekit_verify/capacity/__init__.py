"""What one process carries: real sockets, a load that does not wait for the server, and what the numbers mean.

schedule         the load: when each run starts, and when each of its events is due
protocol         the messages between an experiment and its two processes
server_process   the process that is measured: agents, bridge and sockets
client_process   the users' sockets, and what they read of a load, judged
testbed          both processes, controlled from the experiment
load_search      one load and what became of it; which loads are tried
capacity         what each edge carries
memory_scaling   the memory of idle sockets, of threads with a history, and of waiting runs; the edges compared
queueing         the closed form of waiting, beside what was measured
sizing           from an application's own numbers to workers and memory; what a shared store adds
"""
