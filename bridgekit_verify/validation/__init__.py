"""Evidence that the measurement is right: mutated histories, broken links, known rates."""
