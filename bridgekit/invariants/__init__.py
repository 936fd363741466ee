"""Invariants of any recorded stream of events, whoever recorded it. Pure."""
