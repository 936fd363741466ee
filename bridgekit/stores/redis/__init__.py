"""The Redis store: one Redis or Valkey server, or a Cluster, that any number of workers share.

- `log`: the event log, which combines `publishing`, `subscriptions` and `delivery`
- `publishing`: sends events to the server, with queues and batches
- `subscriptions`: receives events from the server by sharded pub/sub
- `delivery`: delivers received events to sockets in order, and reads the log if messages may have been missed
- `mapping_and_tickets`: stores routes of runs, and used tickets
- `active_runs`: records active runs, and takes over the runs of dead workers
- `topology`: finds the nodes behind a URL, and detects which nodes do not reply
- `server_errors`: interprets errors, and determines when to try again
- `keys_and_functions`: key names, and the names of the functions in `functions.lua`, which the server executes
"""
