"""Starts child processes, exchanges messages with them, and applies load through many sockets.

processes           the parent's side: starts, signals, restarts and queries a child process
child_side          the child's side: JSON lines on standard input and output, CPU times and memory of the process
websocket_protocol  the client side of one WebSocket, without I/O
load_client         many plain sockets in one process: reads are timestamped immediately and decoded afterwards

The package imports only the standard library, anyio, msgspec and the core of bridgekit, because the benchmarks also run
it in the interpreters of other stacks.
"""
