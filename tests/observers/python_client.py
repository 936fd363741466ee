"""An independent client based on websocket-client, with one blocking socket and one thread for each subscription.

It shares no code with bridgekit's client, and runs as a separate program, so that it shares no interpreter with the
server.
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
"""How long a socket may wait for a frame."""

_stdout_lock = threading.Lock()


def read_socket(subscription: dict[str, Any]) -> None:
    """Read one socket to its end."""
    query = urlencode({"thread_id": subscription["thread_id"], "user_id": subscription["user_id"]})
    # A proxy in the environment would not reach a loopback address.
    socket = create_connection(f"{subscription['url']}/ws?{query}", timeout=SOCKET_SECONDS, http_no_proxy=["127.0.0.1"])
    while True:
        opcode, data = socket.recv_data()
        if opcode == ABNF.OPCODE_TEXT:
            print_line(socket=subscription["number"], text=data.decode())
        elif opcode == ABNF.OPCODE_CLOSE:
            print_line(socket=subscription["number"], closed=int.from_bytes(data[:2], "big"))
            return
        else:
            raise ValueError(f"unexpected frame with opcode {opcode}: only text and close frames are expected")


def print_line(**line: object) -> None:
    with _stdout_lock:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def main() -> None:
    subscriptions = json.load(sys.stdin)
    with ThreadPoolExecutor(max_workers=len(subscriptions)) as pool:
        list(pool.map(read_socket, subscriptions))  # list() raises the error of a thread


if __name__ == "__main__":
    main()
