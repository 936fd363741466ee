"""bridgekit_verify: the suite that measures whether an agent's events reach their users.

It stands on `bridgekit`, which never imports it. Its parts, lowest first; a part imports from those above it:

    errors
    as_committed, variants, ladder    the chains that are compared
    harness                         child processes, their messages, and load clients; the benchmarks use it too
    measure                         what was delivered, to whom, and where the rest was lost
    probes, studies, validation     tests of one link; comparisons; evidence that the checker is right
    faults, capacity                failures of the environment; what one process carries
    report                          notebooks to findings to one HTML file
    commands                        `bridgekit report`, `audit` and `demo`
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
