"""The measuring, measured: planted faults, broken links, known rates."""
