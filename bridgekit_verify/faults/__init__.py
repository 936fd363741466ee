"""Injected failures of the environment of a running bridge: networks, processes and servers."""
