"""`bridgekit serve`, and the same servers for programs.

    native_handoff   which edge serves an application; uvicorn gives sockets to the native edge
    in_process       `serving`: a server in the running event loop, for tests, notebooks and programs
    application      the application that is served: where it is found, and what the command line changes in it
    server           uvicorn in this process or in several workers, until a signal stops it
    command          the arguments of `bridgekit serve`

A module imports only from those above it.
"""
