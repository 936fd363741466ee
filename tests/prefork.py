"""A minimal pre-fork server: it listens, starts two workers that inherit the socket, and prints an exit code."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.server_processes import APP


def print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        host, port = listener.getsockname()
        print_line(f"listening on http://{host}:{port}")
        command = [sys.executable, "-m", "uvicorn", APP, "--fd", str(listener.fileno())]
        first, second = (subprocess.Popen(command, pass_fds=[listener.fileno()]) for _ in range(2))
        while first.poll() is None and second.poll() is None:
            try:
                first.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        print_line(f"a worker ended with {first.poll() or second.poll()}")
        first.wait()
        second.wait()


if __name__ == "__main__":
    main()
