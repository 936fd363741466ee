"""An application whose own module has a mistake in it."""

app = 1 / 0
