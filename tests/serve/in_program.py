"""A program that serves an application and continues afterwards."""

from __future__ import annotations

import sys
import time

from bridgekit.serve import server
from bridgekit.serve.app_loader import AppSpec

EXIT_TIMEOUT_SECONDS = 0.2
CONTINUES_SECONDS = 5 * EXIT_TIMEOUT_SECONDS


def write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    server.EXIT_TIMEOUT_SECONDS = EXIT_TIMEOUT_SECONDS  # type: ignore[misc]  # shorter than in production
    options = server.ServerOptions(
        host="127.0.0.1",
        port=0,
        monitoring_port=None,
        workers=1,
        edge=None,
        keepalive_seconds=20,
        incoming_bytes=16_384,
        log_level="warning",
    )
    spec = AppSpec(target="tests.serve.stubborn:app")
    code = server.serve(spec, options, lambda served: write_line("served"), ends_process=bool(sys.argv[1]))
    time.sleep(CONTINUES_SECONDS)
    write_line("continues")
    sys.exit(code)
