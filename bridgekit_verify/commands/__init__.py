"""The commands of the suite, one module each, listed in the command table of `bridgekit.__main__`."""
