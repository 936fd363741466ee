"""What was delivered, to whom, and where the rest died.

From what happened to a verdict: history, ledger (evidence, lateness), checker, statistics. How it is made to happen:
families, workload, experiment (noting, blame, witness). How it is shown: tables, plots. And five rooms:

    probing   trying the links one by one
    studies   the comparisons that the notebooks make
    trust     the measuring, measured
    streams   invariants of any recorded stream
    faults    networks, processes and servers that fail on purpose
"""
