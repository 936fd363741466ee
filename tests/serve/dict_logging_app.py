"""The stubborn application in a program that configures its own logging with `dictConfig`, which disables all other
loggers by default."""

from __future__ import annotations

from logging.config import dictConfig

from tests.serve.stubborn import app

dictConfig(
    {
        "version": 1,
        "formatters": {"mine": {"format": "mine: %(message)s"}},
        "handlers": {"mine": {"class": "logging.StreamHandler", "formatter": "mine"}},
        "root": {"handlers": ["mine"]},
    }
)

__all__ = ["app"]
