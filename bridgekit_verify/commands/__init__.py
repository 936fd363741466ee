"""The commands of the suite, one module each. The command table of `bridgekit.__main__` lists them."""
