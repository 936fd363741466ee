"""The Redis store: a server of the Redis protocol, or a Cluster, that any number of workers share.

log            the event log, which combines the next three
publishing     from a worker to the server: queues and batches
subscriptions  from the server to a worker: sharded pub/sub
delivery       from there to its sockets: order, and reading the log where messages may have been missed
mapping        routes of runs, and used tickets
topology       the server or Cluster behind a URL: a redis-py client for each node, and whether it answers
functions      the names of keys, and of the functions that the server executes: functions.lua
"""
