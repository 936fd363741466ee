"""The load client. `python -m benchmarks.load` is its process."""
