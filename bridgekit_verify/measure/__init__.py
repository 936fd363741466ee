"""Measure which events reach their user, and which link lost the other events.

From observation to verdict: history, ledger (attribution, lateness), checker, statistics. Running a measurement:
thread_id_families, workload, experiment (calls, instrumentation, error_origin, observer). Following one event: tracing
(trace_evidence, trace_steps, trace_figure). Presentation: tables, plots.
"""
