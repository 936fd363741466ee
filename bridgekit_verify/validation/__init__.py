"""Validate the measurement itself with mutated histories, broken links and known rates."""
