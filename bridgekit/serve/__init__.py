"""`bridgekit serve`: somebody's application behind a socket, with the choices that are made where it runs."""
