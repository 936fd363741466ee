"""Judges recordings of backends that bridgekit did not build.

`recording_files` reads files, and `dialects` maps a protocol's messages to frames. `judge` finds violations in frames,
`verdict` turns violations into one answer for each property, and `output` formats the answers. Judging does
no I/O. `live` adds a scripted model, whose ledger records what it sent, so that losses can be counted exactly.
"""
