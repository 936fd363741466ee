"""The SQLite store: thread logs, routes and used tickets in one file, for one process.

file            the file: opened, locked, checked, closed
database        its writer: group commit, and reads between two commits
thread_log      what one thread has in the file
log             thread logs: an event is committed before it is delivered
mapping         routes
used_tickets    used tickets
schema.sql      the tables, and the trigger that writes one transaction
"""
