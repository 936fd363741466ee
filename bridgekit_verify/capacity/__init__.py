"""What one process carries: real sockets, a load that does not wait for the server, and what the numbers mean.

schedule   the load: when each run begins, and when each of its events is due
pipe       what the experiment and its two processes say to each other
agents     what runs say, and when
carrier    the program that is measured: agents, bridge and sockets in one process
load       the program that reads: plain sockets, which take apart what they read when the clock has stopped
heard      what the sockets read, judged
site       both processes, held from the experiment
step       one load, and what became of it
ladder     the loads that are tried: doubled until one is not carried, then halved between
capacity   what each edge carries
crowd      what idle sockets, threads with a history and waiting runs weigh
shared     what an event costs more where workers share a broker
edges      the two edges; choice has them side by side
queueing   the closed form of waiting, beside what was measured
sizing     from an application's own numbers to workers and memory
"""
