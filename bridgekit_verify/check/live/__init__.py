"""Checks a running backend whose model is scripted: what the model sent is known, so losses can be counted exactly.

model_scripts, markers, model_ledger  what the model sends, marks in its texts, and the record of what it sent
model_requests, model_answers         the two protocols of the model, without I/O
model_server                          serves both protocols
backend_file, templates               the TOML file of a backend
scenarios, load_session, clients      users, threads, runs and connections
starting, drivers                     start the backend and send it requests
thread_server                         serves an ASGI application in a thread
recorder, saved_run                   record what clients receive; the file format of a run
observed_clients                      finds markers in received frames
evidence                              compares ledger and clients: what each client must receive, and what arrived
delivery, ledger_rules, verdict       judge what arrived, and conclude one answer for each property
backend_check                         checks one backend from start to verdict
"""
