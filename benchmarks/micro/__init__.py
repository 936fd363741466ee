"""Single steps of an event's way, by pytest-benchmark: `pytest benchmarks/micro`, which `make bench` calls."""
