"""One way to start a child process, to exchange messages with it, and to load it through many sockets.

processes     a child process: started, signalled, restarted, and asked; the only module that starts processes
messages      the child's side: lines of JSON on standard input and output; its clocks and its memory
websocket     the client side of one WebSocket, without its socket
load_client   many plain sockets in one process: what they read is timestamped at once and decoded afterwards

The package imports the standard library, anyio, msgspec and the core of bridgekit only: it also runs in the
interpreters of stacks that are measured beside bridgekit.
"""
