"""Pure functions that check the invariants of a recorded event stream, from any backend, and return a report."""
