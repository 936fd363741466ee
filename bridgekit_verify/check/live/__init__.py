"""Checks a running backend whose model is scripted: what the model sent is known, so losses are exact.

`markers`, `scripts` and `ledger` are data; `requests` and `answers` are the two protocols of the model, without I/O;
`model_server` serves them. `observing` finds markers in what clients received, `delivery` and `model_rules` compare
both sides (`evidence`), and `checking` concludes. `saved_run` is the file format.
"""
