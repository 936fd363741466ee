"""The stubborn application in a program that configures its own logging."""

from __future__ import annotations

import logging

from tests.serve.stubborn import app

logging.basicConfig(format="mine: %(message)s")

__all__ = ["app"]
