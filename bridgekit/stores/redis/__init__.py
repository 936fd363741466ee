"""The Redis store: a server of the Redis protocol, or a Cluster, that any number of workers share.

functions   what the server executes, and the names of keys. The functions themselves are in functions.lua
topology    the server or Cluster behind a URL: a redis-py client for each node, and whether it answers
publishing  from a worker to the server: queues and batches
delivery    from the server to a worker's sockets: subscriptions and catching up
log         the event log, which combines the two
mapping     routes of runs, and used tickets
"""
