"""Measure which events reach their user, and which link lost the other events.

The modules history, ledger (with attribution, numbering and overtaken_events), checker and statistics give the verdict.
The modules thread_id_families, workload and experiment (with calls, instrumentation, error_origin and second_observer)
run a measurement. The module tracing (with trace_evidence, trace_steps and trace_figure) follows one event.
Presentation: tables, plots.
"""
