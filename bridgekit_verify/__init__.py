"""bridgekit_verify: the suite that measures whether an agent's events reach their users.

The suite builds on `bridgekit`. The parts are listed lowest first. A part imports only from those above it:

    errors
    as_committed, variants, repairs   the chains that are compared
    harness                           child processes, their messages and load clients; the benchmarks use it too
    measure                           what was delivered, to which user, and which link lost the rest
    probes, studies, validation       tests of one link; comparisons; evidence that the checker is right
    faults, capacity                  failures of the environment; the load that one process can carry
    report                            from notebooks to findings to one HTML file
    commands                          `bridgekit report`, `audit` and `demo`
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
