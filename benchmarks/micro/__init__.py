"""Microbenchmarks of the steps of an event's path, with pytest-benchmark: `pytest benchmarks/micro` or `make bench`."""
