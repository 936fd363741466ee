"""Measure the loss that each fault causes in each delivery mode, with real worker processes and sockets.

worker_process    the program of a worker process
deployment        the delivery modes that are compared, each as running processes
fault_catalogue   the faults by name, with their target and how they are applied
recorder          records what workers report and users read, and builds the history from both
load              starts agent runs during a fault and after it
trial             applies one fault to one deployment and checks the history
matrix            every fault in every delivery mode, once or repeatedly as a soak test
offline_time      loss as a function of the time that users are offline
stall             a socket that stops reading: the bridge compared with two servers that send in a loop
"""
