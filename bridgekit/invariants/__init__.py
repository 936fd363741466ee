"""Checks of the invariants of recorded event streams, from any backend: pure functions from a recording to a report."""
