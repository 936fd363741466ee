"""An application module that raises an error when it is imported."""

app = 1 / 0
