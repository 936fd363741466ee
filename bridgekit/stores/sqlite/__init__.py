"""The SQLite store: thread logs, routes and active runs in one file, for one process.

- `file`: opens, locks, checks and closes the file
- `group_commit`: writes many operations in one commit, and reads between two commits
- `thread_log`: one thread's position and rows in the file
- `log`: thread logs, which commit an event before they deliver it
- `mapping_and_runs`: stores routes of runs, and active runs
- `schema.sql`: the tables, and the trigger that writes one transaction
"""
