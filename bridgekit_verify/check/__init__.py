"""Judges recordings of backends that bridgekit did not build.

`recording_files` reads files, and `dialects` maps a protocol's messages to frames. `judge` finds violations in frames,
`verdict` turns violations into one answer for each property, and `output` formats the answers. Judging does no I/O.
`live` checks a backend that runs with a scripted model. The model records what it sends, so losses can be counted
exactly.
"""
