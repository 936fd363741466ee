"""The servers of `bridgekit serve`, which programs can also start.

- `connection_limits`: time limits and backpressure for connections to uvicorn
- `native_handoff`: chooses the edge, and lets uvicorn hand connections off to the native edge
- `in_process`: serves an application in the running event loop, for tests, notebooks and programs
- `app_loader`: finds and loads the application, and applies the command line's options
- `server`: runs uvicorn in this process or in several workers, until a signal stops it
- `command`: the arguments of `bridgekit serve`

Each module imports only from modules above it in this list.
"""
