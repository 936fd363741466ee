"""Benchmarks: the speed of an event from an agent to a socket, in bridgekit and in alternative stacks.

    workload                         the exact events that are emitted, so that the received ones can be verified
    peers/                           one small file for each stack, all with the same interface
    stack_process, agents            the server process: a stack, and the agents that emit through it
    load_process, dialects           the client process: reads events and verifies them afterwards (verification)
    process_messages, stack_session  the messages to these processes, and a running stack with its clients
    measures/                        throughput, latency, stall, memory, growth, own cost, imports
    targets, results, figures        the performance targets, the results, and the figures
    micro/                           microbenchmarks of single steps, with pytest-benchmark

`make bench-quick` and `make bench` run the benchmarks. `python -m benchmarks --help` lists the options.
"""
