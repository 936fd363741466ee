"""The suite's commands, one module each; `bridgekit.__main__` has the table that names them."""
