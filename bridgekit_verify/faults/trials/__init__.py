"""What each fault costs with and without each protection: real workers, real sockets, one fault at a time.

worker       the program of a worker process
deployment   the delivery modes that are compared, each as running processes
acts         the faults, by name: what is done to what
recorder     what workers report and what users read, and the history that both make
load         the runs during a fault, and after it
trial        one fault in one deployment, judged
matrix       every fault against every delivery mode, once or as a soak test
windows      loss against the time that users are offline
stall        one socket that stops reading: two loops of sends beside the bridge
"""
