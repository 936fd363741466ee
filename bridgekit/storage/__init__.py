"""Connections to what keeps things outside the process, shared by whoever stores something there.

What is stored is said elsewhere: routes in `bridgekit.mapping`, logs and spent tickets in `bridgekit.transport`.
"""
