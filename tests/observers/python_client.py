"""A witness: websocket-client, one blocking socket and one thread a seat. It shares nothing with our own client.

Run as a program of its own, so that it shares no interpreter with the server either.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

from websocket import ABNF, create_connection

SOCKET_SECONDS = 30.0
"""How long a socket may stay silent."""

_speaking = threading.Lock()


def follow(seat: dict[str, Any]) -> None:
    """Read one socket to its end."""
    query = urlencode({"thread_id": seat["thread_id"], "user_id": seat["user_id"]})
    # Whatever proxy the surroundings name: a loopback address is not reached over it.
    socket = create_connection(f"{seat['url']}/ws?{query}", timeout=SOCKET_SECONDS, http_no_proxy=["127.0.0.1"])
    while True:
        opcode, data = socket.recv_data()
        if opcode == ABNF.OPCODE_TEXT:
            say(socket=seat["number"], text=data.decode())
        elif opcode == ABNF.OPCODE_CLOSE:
            say(socket=seat["number"], closed=int.from_bytes(data[:2], "big"))
            return
        else:
            raise ValueError(f"a frame that is no text: opcode {opcode}")


def say(**line: object) -> None:
    with _speaking:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def main() -> None:
    seats = json.load(sys.stdin)
    with ThreadPoolExecutor(max_workers=len(seats)) as pool:
        list(pool.map(follow, seats))  # so that a thread's error is the program's


if __name__ == "__main__":
    main()
