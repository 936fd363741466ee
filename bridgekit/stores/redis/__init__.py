"""The Redis store: one Redis or Valkey server, or a Cluster, that any number of workers share.

log                  the event log, which combines the next three modules
publishing           sends events to the server: queues and batches
subscriptions        receives events from the server: sharded pub/sub
delivery             delivers received events to sockets in order, and reads the log if messages may have been missed
mapping_and_tickets  routes of runs, and used tickets
topology             finds the nodes behind a URL, with a redis-py client for each, and detects which do not reply
server_errors        interprets errors: their text, whether they concern one key, and when to try again
keys_and_functions   key names, and the names of the functions in functions.lua, which the server executes
"""
