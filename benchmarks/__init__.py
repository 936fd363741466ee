"""How fast an event gets from an agent to a socket: bridgekit beside what a user would write instead.

    workload                     what is emitted, word for word, so that what arrives can be judged
    peers/                       one small file a stack, all behind one protocol
    stack_process, agents        the server's process: a stack, and the agents that emit through it
    load_process, dialects       the client's process: it reads, and judges afterwards (verification)
    protocol, session            the messages to these processes, and one stack that is up
    measures/                    throughput, latency, stall, memory, growth, own cost, imports
    targets, results, figures    what was to be reached, what was, and the pictures
    micro/                       single steps, by pytest-benchmark

`make bench-quick` and `make bench` run it; `python -m benchmarks --help` tells the rest.
"""
