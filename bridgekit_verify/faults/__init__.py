"""Inject failures into the environment of a running bridge: networks, processes and servers."""
