"""What was delivered, to whom, and where the rest died."""
