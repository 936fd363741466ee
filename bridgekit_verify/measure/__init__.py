"""What was delivered, to which user, and which link lost the rest.

From observation to verdict: history, ledger (attribution, lateness), checker, statistics. Running a measurement:
families, workload, experiment (instrumentation, error_origin, observer). Presentation: tables, plots.
"""
