"""How fast an event gets from an agent to a socket: bridgekit beside what a user would write instead.

    workload                     what is said, word for word, so that what arrives can be judged
    load/                        the client, a process of its own: reads, counts, and afterwards verifies
    peers/                       one small file a stack, all behind one protocol
    served                       the server's process: a peer, and the agents that speak by it
    children, session            the two processes of one stack, and what they are asked
    measures/                    throughput, latency, stall, memory, growth, own cost, imports
    targets, results, figures    what was to be reached, what was, and the pictures
    micro/                       single steps, by pytest-benchmark

`make bench-quick` and `make bench` run it; `python -m benchmarks --help` tells the rest.
"""
