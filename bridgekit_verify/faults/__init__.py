"""What the world does while a bridge runs: networks that fail, processes that die, servers that go away."""
