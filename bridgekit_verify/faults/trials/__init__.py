"""What each fault costs with and without each protection: real workers, real sockets, one fault at a time.

worker       the program of a worker process, and what it is told and says
hands        a worker process, held from the experiment: started, killed, paused, asked
deployment   the ways to deliver that are compared, each as processes that run
readers      the users' sockets, which stay or come back, and what they read
acts         the faults, by name: what is done to what
trial        one fault in one deployment, judged
matrix       every fault against every way to deliver
windows      loss against the length of being away
"""
