"""The SQLite store: one file, for one process.

database        the file and its lock, group commit, reads
log             thread logs: an event is committed before it is delivered
mapping         routes
used_tickets    used tickets
schema.sql      the tables, and the trigger that writes one transaction
"""
