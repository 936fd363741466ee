"""Trying the links one by one: the probes, and what they work with."""
