"""Judges recordings of backends that bridgekit did not build.

`containers` reads files, `dialects` maps a protocol's messages to frames, `judging` turns frames into violations,
`answers` turns those into one answer for each property, and `output` formats them. Judging does no I/O.
`live` adds a scripted model, whose ledger makes the answers exact.
"""
