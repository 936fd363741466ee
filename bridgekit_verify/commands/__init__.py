"""The commands of the suite, one module each. `bridgekit.__main__` lists these modules."""
