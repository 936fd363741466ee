"""bridgekit_verify: the suite that measures whether an agent's events reach their users.

The suite imports `bridgekit`. Each part imports only from its own line of this list or from earlier lines:

    errors
    as_committed, variants, repairs   the chains that are compared
    harness                           child processes, their messages and load clients; the benchmarks use it too
    measure                           what was delivered, to which user, and which link lost the other events
    faults, probes, validation        failures of the environment; tests of one link; evidence that the checker is right
    capacity, check, studies          the load that one process can carry; checks of any backend; comparisons
    report                            from notebooks to findings to one HTML file
    commands                          `bridgekit report`, `audit`, `demo`, `check` and `learn`
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
